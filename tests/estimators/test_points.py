"""Several points in one forward, and atoms folded into the weights: the losses of parameters that are written to."""

import copy

import pytest
import torch

from tests.conformance.cases import CASES, same_bits
from tests.estimators.test_language_models import parts_of
from zo_runner.config.instantiate import build
from zo_runner.methods.directions import LowRankPart, move
from zo_runner.methods.queries import finite, losses_at
from zo_runner.methods.random import generator, normal
from zo_runner.models import atom_folding
from zo_runner.models.atom_folding import Fold
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.lora import lora_groups
from zo_runner.models.perturbation_hooks import PointHooks
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.tasks.base import Scoring
from zo_runner.training.objective import Objective

LOW_RANK = ("ar1zo", "lora_zo", "lozo", "subzero", "mezo-adapter", "subzero-adapter")

# Far enough for the loss to change by a thousand times what rounding does.
OFFSETS = {"adapter": (0.05, -0.05, 0.0), "full": (5e-3, -5e-3, 0.0)}
ROUNDING = 3e-6


@pytest.fixture(params=LOW_RANK)
def node(request):
    return CASES[request.param]


def prepared(node, model, rank=4):
    """The model with an adapter that does something, and its groups."""
    model, groups = parts_of(node, model, rank=rank)
    for group in groups if node["trains"] == "adapter" else []:
        b_OR = group["params"][1]
        b_OR.copy_(0.02 * normal(b_OR.shape, 0, "B", group["name"]))
    return model, groups


def method_of(node, groups, **arguments):
    return build({**node, "lr": 0.0, "eps": 1e-3, **arguments})(groups, seed=0)


def perturbed(evaluator, model, evaluation, fold=False):
    evaluator.perturbed = PerturbedModel(model, evaluation, fold)
    return evaluator


def written(query, directions, offsets):
    """The same losses with every perturbation written to the parameters, one forward each."""
    return losses_at(lambda: query(), directions, offsets)


def furthest(left, right):
    """The largest difference of two tables of losses, as a share of the loss where that is above 1."""
    pairs = [pair for rows in zip(left, right, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(x - y) / max(1.0, abs(y)) for x, y in pairs)


@torch.no_grad()
def test_one_forward_reads_what_one_forward_per_point_does(node, subject):
    model, groups = prepared(node, subject.model)
    evaluator = perturbed(subject.evaluator(model), model, "batched")
    query = Objective(evaluator, evaluator.batches(subject.examples))
    parameters = [p for group in groups for p in group["params"]]
    before = [p.clone() for p in parameters]
    directions, offsets = [method_of(node, groups).direction(step) for step in range(3)], OFFSETS[node["trains"]]
    expected = written(query, directions, offsets)
    assert query.supports(directions)
    found = losses_at(query, directions, offsets)
    assert furthest(found, expected) <= ROUNDING
    assert min(abs(row[0] - row[2]) for row in expected) >= 30 * ROUNDING, "the points are too near to tell"
    assert furthest([losses_at(query, [u], offsets)[0] for u in directions], found) <= ROUNDING
    assert same_bits(parameters, before)
    assert furthest([[finite(query())]], [[expected[0][2]]]) <= ROUNDING, "a hook is left over"


def long_and_short(scoring, vocabulary):
    """Examples of unlike lengths, with options of one to four tokens, or one answer each."""
    draw = generator(0, "examples")

    def tokens(count):
        return tuple(torch.randint(3, vocabulary, (count,), generator=draw).tolist())

    sizes = ((1,), (3,), (2,), (4,)) if scoring == "answer" else ((1, 3), (2, 1), (4, 2, 1), (1, 1))
    return [Encoded(tokens(3 + 4 * i), tuple(map(tokens, options)), (0,)) for i, options in enumerate(sizes)]


@pytest.mark.parametrize("loss", ["options", "answer"])
@pytest.mark.parametrize("name", ["ar1zo", "lozo"])
@torch.no_grad()
def test_every_kind_of_loss_is_read_at_several_points(name, loss, subject):
    """Also where options are continued in a second forward, and where that is cut into parts."""
    node = CASES[name]
    model, groups = prepared(node, subject.model)
    scoring = Scoring(loss, ("accuracy",) if loss == "options" else ("exact_match",))
    evaluator = Evaluator(model, scoring, pad_id=subject.pad_id, perturbed=PerturbedModel(model, "batched", False))
    query = Objective(evaluator, evaluator.batches(long_and_short(loss, min(64, model.config.vocab_size))))
    directions = [method_of(node, groups).direction(step) for step in range(2)]
    offsets = OFFSETS[node["trains"]]
    assert furthest(losses_at(query, directions, offsets), written(query, directions, offsets)) <= ROUNDING


@pytest.mark.parametrize("order", ["cyclic", "shuffled"])
@pytest.mark.parametrize("offsets", ["shared", "per_module"])
@pytest.mark.parametrize("evaluation", ["sequential", "batched"])
@pytest.mark.parametrize("together", [1, 2, 8])
@torch.no_grad()
def test_folded_atoms_leave_the_loss_what_it_is_over_several_passes(
    order, offsets, evaluation, together, random_opt, monkeypatch
):
    """Blocks of one atom, blocks that the rank is no multiple of, and one block that has them all."""
    monkeypatch.setattr(atom_folding, "BLOCK", together)
    node, rank = {**CASES["ar1zo"], "order": order, "offsets": offsets}, 5
    model, groups = prepared(node, random_opt.model, rank)
    evaluator = perturbed(random_opt.evaluator(model), model, evaluation, fold=True)
    batches = evaluator.batches(random_opt.examples)
    query = Objective(evaluator, batches)
    method = method_of(node, groups)
    for group in method.param_groups:
        group["lr"] = 1.0
    for step in range(3 * rank):
        u = method.direction(step)
        assert query.supports([u])
        expected = written(query, [u], (0.05, -0.05))
        assert furthest(losses_at(query, [u], (0.05, -0.05)), expected) <= ROUNDING
        move(u, 0.01)
    restored = [p for group in lora_groups(model) for p in group["params"]]
    assert all(p is q for p, q in zip(restored, (p for g in groups for p in g["params"]), strict=True))


@torch.no_grad()
def test_an_adapter_that_changed_behind_the_fold_is_folded_anew_or_noticed(random_opt, monkeypatch):
    monkeypatch.setattr(atom_folding, "BLOCK", 1)
    node, rank = CASES["ar1zo"], 4
    model, groups = prepared(node, random_opt.model, rank)
    evaluator = perturbed(random_opt.evaluator(model), model, "sequential", fold=True)
    query = Objective(evaluator, evaluator.batches(random_opt.examples))
    method = method_of(node, groups)
    losses_at(query, [method.direction(0)], (0.05,))
    for _ in range(2):  # an update is one write, this is two
        groups[0]["params"][1].mul_(3.0)
    expected = written(query, [method.direction(1)], (0.05,))
    assert furthest(losses_at(query, [method.direction(1)], (0.05,)), expected) <= ROUNDING
    groups[0]["params"][1].data.mul_(3.0)  # torch counts no write through .data
    for step in range(2, rank + 1):
        losses_at(query, [method.direction(step)], (0.05,))
    with pytest.raises(RuntimeError, match="An adapter was changed between steps"):
        losses_at(query, [method.direction(rank + 1)], (0.05,))


@torch.no_grad()
def test_whole_runs_agree_on_every_path(random_opt):
    """Twenty steps of AR1-ZO from one point: written, at once, folded, and both."""
    node, ends = CASES["ar1zo"], []
    for evaluation, fold in (("written", False), ("batched", False), ("sequential", True), ("batched", True)):
        subject = copy.deepcopy(random_opt)
        model, groups = prepared(node, subject.model)
        evaluator = subject.evaluator(model)
        if evaluation != "written":
            perturbed(evaluator, model, evaluation, fold)
        method = method_of(node, groups, lr=0.01, eps=1e-2)
        for _ in range(20):
            method.step(Objective(evaluator, evaluator.batches(subject.examples)))
        ends.append(torch.cat([p.flatten() for group in groups for p in group["params"]]))
    start = torch.cat([p.flatten() for group in prepared(node, random_opt.model)[1] for p in group["params"]])
    distances = [float((end - ends[0]).norm() / (ends[0] - start).norm()) for end in ends[1:]]
    assert max(distances) <= 1e-4


def test_what_cannot_be_added_from_outside_is_written(random_opt):
    dense = method_of(CASES["mezo"], parts_of(CASES["mezo"], random_opt.model)[1]).direction(0)
    evaluator = perturbed(random_opt.evaluator(random_opt.model), random_opt.model, "batched")
    assert not Objective(evaluator, evaluator.batches(random_opt.examples)).supports([dense])


def test_a_base_of_lower_precision_is_not_folded(random_opt):
    model, _ = prepared(CASES["ar1zo"], random_opt.model.bfloat16())
    assert not Fold.possible(model)
    assert PerturbedModel(model, "auto", None).fold is None


@torch.no_grad()
def test_in_bfloat16_the_radius_is_not_rounded():
    """One linear layer along a row of its weight: 2 eps x z, where bfloat16 knows neither 1e-3 nor 3e-3 by 0.05 %."""
    layer = torch.nn.Linear(4, 3, bias=False, dtype=torch.bfloat16)
    layer.weight.zero_()
    x, z = torch.tensor([[1.0, 2.0, -1.0, 4.0]], dtype=torch.bfloat16), torch.tensor([[2.0], [1.0], [0.5], [0.25]])
    for eps in (1e-3, 3e-3):
        with PointHooks(layer).at([[LowRankPart(layer.weight, 1, z)]], (eps, -eps)):
            plus, minus = layer(x.repeat(2, 1)).float()
        assert float(plus[1]) == float(torch.tensor(eps * 4.5).bfloat16()) == -float(minus[1])
