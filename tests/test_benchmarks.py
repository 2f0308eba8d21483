"""The bench compares ways to compute the same thing. Nothing here is timed."""

import itertools
import json

import pytest
import torch

from benchmarks import report, steps
from benchmarks.__main__ import measure
from benchmarks.floor import WAYS, copies, pairs
from benchmarks.matrix import Cell, Grid, Memory
from benchmarks.plain_step import Plain
from benchmarks.rounds import TOLERANCE, TimedSteps, in_turn
from benchmarks.settings import Work, pocket
from benchmarks.start import HELP, NEW, Start
from zo_runner.assets import ASSETS
from zo_runner.errors import UserError
from zo_runner.methods.directions import DirectionPart
from zo_runner.methods.queries import losses_along
from zo_runner.records.json_files import encode

SMALLEST = Grid(
    rounds=1,
    rounds_alone=2,
    examples=1,
    scored=2,
    batches=(2,),
    ranks=(2,),
    growing_batches=(1,),
    growing_lengths=(5,),
    growing_ranks=(1, 2),
    growing_directions=(2,),
    probed_lengths=(5,),
    memory=(2,),
    rounded_ranks=(2,),
    rounded_directions=2,
)


@pytest.fixture(scope="module", params=[ASSETS[0], pytest.param(ASSETS[1], marks=pytest.mark.slow)])
def setting(request):
    return pocket(request.param)


def test_all_variants_see_the_loss_that_the_evaluator_computes(setting):
    work = Work(setting, setting.mixed, 5)
    evaluator = steps.evaluator_of(setting, setting.base.model, steps.DEFAULT)
    expected = [float(evaluator.loss(*evaluator.batches(batch))) for batch in work.batches(range(2))]
    variants = {name: pairs(work, way) for name, way in WAYS.items()}
    variants["plain"] = Plain(work, rank=4, lr=steps.LR, eps=steps.EPS)
    variants["copies"] = copies(work, 3)
    for method, evaluation in itertools.product(steps.METHODS, steps.EVALUATIONS):
        variants[f"{method} {evaluation}"] = steps.Ours(work, rank=4, method=method, evaluation=evaluation)
    for name, take in variants.items():
        assert take(range(2)).losses == pytest.approx(expected, abs=TOLERANCE / 10), name


@torch.no_grad()
def test_the_plain_step_goes_along_what_it_perturbed(setting):
    work, lr, eps = Work(setting, setting.mixed, 4), 1.0, 1e-2
    plain = Plain(work, rank=4, lr=lr, eps=eps)
    model, groups = setting.adapted(4, "canonical")
    parameters = [p for group in groups for p in group["params"]]
    evaluator = steps.evaluator_of(setting, model, steps.DEFAULT)
    batches = evaluator.batches(work.batches(range(3, 4))[0])
    generator = torch.Generator().manual_seed(3)
    z = [torch.randn(p.shape, generator=generator) for p in parameters]
    plus, minus = losses_along(
        lambda: evaluator.loss(*batches),
        [DirectionPart(*pair, {}) for pair in zip(parameters, z, strict=True)],
        (eps, -eps),
    )
    assert plain(range(3, 4)).losses == [pytest.approx((plus + minus) / 2, abs=1e-5)]
    for moved, before, along in zip(plain.parameters, parameters, z, strict=True):
        assert torch.allclose(moved - before, -lr * (plus - minus) / (2 * eps) * along, atol=1e-3)
    assert abs(plus - minus) / (2 * eps) > 0.01


def test_the_ways_without_padding_compute_no_token_twice_and_no_logits_in_vain(setting):
    (batch,) = Work(setting, setting.mixed, 16).batches(range(1))
    for name, way in WAYS.items():
        forwards = way(batch)
        tokens = sum(forward.inputs["input_ids"].numel() for forward in forwards)
        if name in ("alone", "equal lengths", "packed"):
            assert tokens == sum(len(example.prefix) for example in batch), name
        logits = [setting.base.model(**forward.inputs).logits for forward in forwards]
        assert sum(part.shape[0] * part.shape[1] for part in logits) == len(batch), name


def test_variants_that_see_different_losses_are_refused():
    def sees(loss):
        return lambda done: TimedSteps(1.0, [0.5, loss])

    assert in_turn({"one": sees(1.0), "other": sees(1.0 + TOLERANCE / 2)}, rounds=1, steps=2)[1] > 0
    for wrong in (1.0 + 2 * TOLERANCE, float("nan")):
        with pytest.raises(RuntimeError, match="do not see the same losses"):
            in_turn({"one": sees(1.0), "other": sees(wrong)}, rounds=1, steps=2, warm_up=0)


def test_every_round_takes_the_same_steps_of_all_and_begins_with_another():
    taken = []

    def variant(name):
        return lambda done: (taken.append((name, done)), TimedSteps(float(len(taken)), [0.0]))[1]

    seconds, _ = in_turn({name: variant(name) for name in "abc"}, rounds=2, steps=5, warm_up=1)
    assert [name for name, _ in taken] == [*"abc", *"bca", *"cab"]
    assert [done for _, done in taken[::3]] == [range(0, 5), range(5, 10), range(10, 15)]
    assert seconds == {"a": [6.0, 8.0], "b": [4.0, 9.0], "c": [5.0, 7.0]}


@pytest.mark.slow
def test_the_page_and_the_data_hold_every_table():
    page, data = measure({"pocket_opt": SMALLEST})
    tables = {"steps", "batch", "length", "rank", "directions", "probe", "evaluation"}
    assert {cell["table"] for cell in data["cells"]} == tables
    assert page.count("Not measured.") == 1  # the starts, which take half a minute
    rounds = [(cell, len(times)) for cell in data["cells"] for times in cell["seconds"].values()]
    assert {count for cell, count in rounds if cell["batch"] == 2} == {1}
    assert {count for cell, count in rounds if cell["table"] == "batch"} == {2}
    json.dumps(encode(data), allow_nan=False)


def test_a_bar_is_met_by_the_median_of_ratios_within_rounds():
    known = {**report.facts(), "threads": {report.BARRED: 2}}
    # Ratios 5, 3, 5 of medians 8 and 2; 0.9, 1.1, 1.2 against the floor.
    seconds = {"plain": [10.0, 6.0, 8.0], steps.DEFAULT: [2.0, 2.0, 1.6], "floor": [2.0 / 0.9, 2.0 / 1.1, 1.6 / 1.2]}
    cell = Cell(report.BARRED, "steps", 16, 16, seconds=seconds)
    memory = Memory(report.BARRED, "ar1zo", steps.DEFAULT, 16, weights=100, forward=100, step=111)
    started = [Start("python", [0.1]), Start(HELP, [0.4, 0.6, 2.0]), Start(NEW, [6.0, 4.0, 7.0])]
    page = [line.split("|") for line in report.text([cell], [memory], [], started, known).splitlines() if "|" in line]
    bars = {line[1].strip(): (line[4].strip(), line[5].strip()) for line in page if len(line) == 7}
    assert bars["(a) / ours, batch 16, rank 16"] == ("5.000 (3.000 to 5.000)", "yes")
    assert bars["ours / (b), batch 16, rank 16"] == ("1.100 (0.900 to 1.200)", "no")
    assert bars["(c) / (d), batch 1"] == ("not measured", "-")
    assert bars["memory, step / evaluation, batch 16"] == ("1.055", "no")
    starts = {line[1].strip(): tuple(cell.strip() for cell in line[2:5]) for line in page if len(line) == 6}
    assert starts["python"] == ("0.10", "-", "-")
    assert starts[HELP] == ("0.60 (0.40 to 2.00)", "≤ 1", "yes")
    assert starts[NEW] == ("6.00 (4.00 to 7.00)", "≤ 5", "no")


def test_a_real_model_that_is_not_there_is_told_before_anything_is_measured(tmp_path):
    with pytest.raises(
        UserError, match=r"^Invalid ZO_REAL: .* Must be a folder that holds smollm2-135m/ and movie/\.$"
    ):
        measure({}, str(tmp_path))
