"""A run that was cut off goes on as if it had not been, from wherever it was killed."""

import json
import re

import pytest
from safetensors.torch import load_file

from tests.cli.cutting import COMMAND, differing, left, watched
from tests.cli.helpers import read_json, the_run, zo_run
from tests.conformance.cases import METHODS, build
from zo_runner.training import checkpoint

MORE = {
    "folded": ("method=ar1zo", "rank=4", "runtime.fold=true"),
    "folded, in random order": ("method=ar1zo", "rank=8", "method.order=random", "runtime.fold=true"),
    "written points": ("method=ar1zo", "rank=4", "runtime.evaluation=sequential", "runtime.fold=false"),
    "a rate that follows": ("method=ar1zo", "rank=2", "method.lr=auto", "calibration.probes=2", "calibration.every=2"),
    "a budget of tokens": ("method=mezo", "budget.queries=null", "budget.tokens=1500"),
    "injected noise": ("method=lozo_m", "noise=injected", "noise.every=3"),
    "another model": ("method=ar1zo", "model=pocket_qwen3"),
}
FIRST_ORDER = {name for name, node in METHODS.items() if build(node).func.needs_grad}
CASES = {name: (f"method={name}",) for name in METHODS} | MORE


def replays_bit_for_bit(run):
    """Whether job=replay finds the parameters that were the best on dev."""
    best = read_json(run / "result.json")["metrics"]["dev"]["best"]["step"]
    replayed = zo_run("job=replay", f"run={run}", f"step={best}")
    (weights,) = (run / "best").glob("*.safetensors")
    again, first = (load_file(folder / weights.name) for folder in (run / "replay" / f"step-{best}", run / "best"))
    same = again.keys() == first.keys() and all(again[name].equal(first[name]) for name in first)
    return same and "; bit for bit what best/ holds; " in replayed.out and replayed.err == ""


FEW = {"adaprelora", "fo_adamw", "a rate that follows"}  # of two halves, of first order, and with all that a run keeps


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FEW else pytest.mark.slow) for case in CASES])
def test_a_run_killed_anywhere_ends_as_the_one_that_was_not_and_its_journal_has_the_way(case, tmp_path, monkeypatch):
    words, root, moments = (*COMMAND, *CASES[case]), tmp_path / "runs", tmp_path / "moments"
    with monkeypatch.context() as patch:
        watched(patch, root, moments)
        assert zo_run(*words, f"runtime.root={root}").code == 0
    expected = left(the_run(root))
    found = sorted(moments.iterdir(), key=lambda folder: int(folder.name))
    assert len(found) > 12
    # Every case at another moment, so that together they try the whole length of a run, and neighbours lie far apart.
    moment = found[len(found) * (7 * sorted(CASES).index(case) % len(CASES)) // len(CASES)]
    ended = zo_run(*words, f"runtime.root={moment}")
    assert ended.code == 0, ended.err
    assert not differing(the_run(moment), expected)
    assert not (the_run(moment) / checkpoint.NAME).exists()
    assert case in FIRST_ORDER or replays_bit_for_bit(the_run(root))


@pytest.mark.parametrize("torn", [b'{"step": 9, "se', b"\0\0\0\0", b'{"step": 9}\n'])
def test_a_torn_last_line_costs_the_step_that_it_was_of(cut_off, torn):
    command, run, expected = cut_off
    with (run / "journal.jsonl").open("ab") as stream:
        stream.write(torn)
    assert zo_run(*command).code == 0
    assert not differing(run, expected)


def change_a_slope(lines):
    row = json.loads(lines[4])
    row["slopes"] = [row["slopes"][0] * 1.001]
    return [*lines[:4], json.dumps(row), *lines[5:]]


DAMAGES = {
    "a slope was changed": (change_a_slope, "Line 5 of .*journal.jsonl was changed, or lines before it are missing"),
    "a line is missing": (lambda lines: lines[:3] + lines[4:], "Line 4 of .* was changed"),
    "lines change places": (lambda lines: [lines[1], lines[0], *lines[2:]], "Line 1 of .* was changed"),
    "lines came twice": (lambda lines: [*lines[:3], *lines[2:]], "Line 4 of .* was changed"),
    "the end is missing": (lambda lines: lines[:5], "ends after 5 steps, the checkpoint beside it was made after 8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_was_changed_is_refused_by_name_and_nothing_is_lost(cut_off, damage):
    command, run, _ = cut_off
    change, message = DAMAGES[damage]
    lines = (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    (run / "journal.jsonl").write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    ended = zo_run(*command)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert re.search(message, ended.err)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: flipped(content, -100),
        lambda content: content.replace(b'\\"steps\\": 8', b'\\"steps\\": 9'),
    ],
    ids=["cut off", "empty", "a bit of a parameter", "a number of the state"],
)
def test_a_checkpoint_that_was_changed_is_refused_by_name(cut_off, damaged):
    command, run, _ = cut_off
    file = run / checkpoint.NAME
    content = damaged(file.read_bytes())
    assert content != file.read_bytes()
    file.write_bytes(content)
    ended = zo_run(*command)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert f"{file} cannot be used: " in ended.err
    assert file.read_bytes() == content


def test_a_lost_checkpoint_is_named_and_can_be_given_up(cut_off):
    command, run, expected = cut_off
    (run / checkpoint.NAME).unlink()
    ended = zo_run(*command)
    assert ended.code == 1
    assert "it is missing, and the journal has steps. With runtime.resume=false the run starts anew." in ended.err
    assert zo_run(*command, "runtime.resume=false").code == 0
    assert not differing(run, expected)


def test_what_differs_between_two_sittings_is_said_and_kept(cut_off):
    command, run, expected = cut_off
    meta = read_json(run / "meta.json")
    meta["packages"]["torch"] = "1.0"
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    ended = zo_run(*command)
    assert ended.code == 0
    assert "The run began with torch 1.0 (now " in ended.err
    (sitting,) = read_json(run / "meta.json")["resumed"]
    assert sitting["step"] == 9
    assert sitting["packages"]["torch"] != "1.0"
    assert not differing(run, expected)
