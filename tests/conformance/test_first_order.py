"""What first-order methods keep beside the rules for all: they differentiate one call, and leave nothing behind."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch

from tests.conformance.cases import FIRST_ORDER, METHODS, Problem, groups_of, method_of, same_bits
from zo_runner.config.instantiate import build
from zo_runner.errors import Diverged

STEPS = 7


@pytest.fixture(params=FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
def node(request):
    return request.param


def test_each_order_has_methods_and_its_yaml_says_which_it_is():
    """The configuration knows without torch: a radius and its fall-backs are there, or they are not."""
    assert FIRST_ORDER
    assert len(FIRST_ORDER) < len(METHODS)
    for stem, given in METHODS.items():
        assert {key in given for key in ("eps", "lr_scale", "fallback")} == {stem not in FIRST_ORDER}


@pytest.mark.parametrize("trains", ["adapter", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("stem", "theirs", "arguments"),
    [
        ("fo_sgd", torch.optim.SGD, {}),
        ("fo_adamw", partial(torch.optim.AdamW, weight_decay=0.0), {}),
        (
            "fo_adamw",
            partial(torch.optim.AdamW, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
            {"beta1": 0.8, "beta2": 0.95, "floor": 1e-4, "weight_decay": 0.1},
        ),
    ],
)
def test_it_is_the_optimiser_of_torch_bit_for_bit(stem, theirs, arguments, dtype, trains):
    given = {**METHODS[stem], "trains": trains}
    ours, other = (Problem(groups_of(given, dtype=dtype)) for _ in range(2))
    start = ours.values()
    method = method_of(given, ours, lr=0.05, **arguments)
    optimiser = theirs(other.parameters, lr=0.05)
    for _ in range(STEPS):
        method.step(ours.loss)
        for p, g in zip(other.parameters, other.gradient(), strict=True):
            p.grad = g
        optimiser.step()
        assert all(map(torch.equal, ours.parameters, other.parameters))
    assert not any(map(torch.equal, ours.parameters, start))


def test_a_step_calls_the_closure_once_and_reports_its_loss_and_no_slope(node):
    problem = Problem(groups_of(node))
    method = method_of(node, problem)
    for step in range(3):
        before, calls = float(problem.loss()), []
        assert method.step(lambda calls=calls: calls.append(torch.is_grad_enabled()) or problem.loss()) == before
        assert calls == [True]
        assert (method.report.step, method.report.loss, method.report.slopes) == (step, before, ())
        assert (method.report.lr, method.report.atom) == (0.05, None)
    assert method.queries_per_step == 3


def test_the_loss_falls(node):
    problem = Problem(groups_of(node))
    method = method_of(node, problem, lr=0.02)
    losses = [method.step(problem.loss) for _ in range(20)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


@pytest.mark.parametrize("required", [False, True])
def test_gradients_are_there_during_a_step_only_and_what_was_there_before_does_not_count(node, required):
    problem, plain = Problem(groups_of(node)), Problem(groups_of(node))
    method_of(node, plain).step(plain.loss)
    everything = [*problem.parameters, *problem.weights.values()]
    for tensor in everything:
        tensor.requires_grad_(required)
        tensor.grad = torch.ones_like(tensor) if required else None
    method = method_of(node, problem)
    seen = []
    method.step(lambda: seen.extend(p.requires_grad for p in problem.parameters) or problem.loss())
    assert all(seen)
    assert [p.requires_grad for p in everything] == [required] * len(everything)
    assert all(p.grad is None for p in problem.parameters)
    assert same_bits([p.detach() for p in problem.parameters], plain.parameters)
    assert not any(tensor.requires_grad for state in method.state.values() for tensor in state.values())


def test_a_step_that_fails_leaves_no_gradient_behind(node):
    problem = Problem(groups_of(node))

    def closure():
        problem.loss()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method_of(node, problem).step(closure)
    everything = [*problem.parameters, *problem.weights.values()]
    assert not any(tensor.requires_grad for tensor in everything)
    assert all(tensor.grad is None for tensor in everything)
    assert not any(getattr(w, "_post_accumulate_grad_hooks", None) for w in problem.weights.values())


def test_the_weights_under_an_adapter_keep_every_bit(node):
    problem = Problem(groups_of(node))
    before = [w.clone() for w in problem.weights.values()]
    method = method_of(node, problem)
    for _ in range(STEPS):
        method.step(problem.loss)
    assert same_bits(list(problem.weights.values()), before)


def test_what_is_saved_does_not_hold_the_frozen_weights(node):
    problem = Problem(groups_of(node))
    method = method_of(node, problem)
    method.step(problem.loss)
    saved = method.state_dict()
    tensors = {v.data_ptr() for state in saved["state"].values() for v in state.values()}
    assert tensors.isdisjoint(w.data_ptr() for w in problem.weights.values())
    kept = [value for group in saved["param_groups"] for value in group.values()]
    assert not any(isinstance(value, torch.Tensor) for value in kept)


def test_a_gradient_that_is_not_finite_raises_diverged_and_leaves_every_bit_and_the_state(node):
    problem = Problem(groups_of(node))
    method = method_of(node, problem)
    for _ in range(3):
        method.step(problem.loss)
    before, state = problem.values(), copy.deepcopy(method.state_dict())
    last = problem.parameters[-1]

    def broken():
        """A finite loss whose gradient in one parameter is infinite, beside finite ones everywhere."""
        return problem.loss() + (last - last.detach()).abs().sum().sqrt()

    with pytest.raises(Diverged, match=r"^the gradient is not finite$"):
        method.step(broken)
    assert same_bits(problem.parameters, before)
    after = method.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, found in state["state"].items():
        assert same_bits(after["state"][key].values(), found.values())
    undisturbed = copy.deepcopy(problem)
    fresh = method_of(node, undisturbed)
    fresh.load_state_dict(state)
    fresh.step(undisturbed.loss)
    method.step(problem.loss)
    assert same_bits(problem.parameters, undisturbed.parameters)


@pytest.mark.parametrize("closure", [lambda: torch.tensor(0.5), lambda: 0.5])
def test_a_loss_without_a_gradient_is_no_step(node, closure):
    problem = Problem(groups_of(node))
    before = problem.values()
    method = method_of(node, problem)
    with pytest.raises(RuntimeError, match=r"^The loss has no gradient, which \w+ needs\.$"):
        method.step(closure)
    assert same_bits(problem.parameters, before)
    assert method.steps == 0


def test_an_invalid_number_is_refused_by_name(node):
    """Every number that the YAML gives is checked."""
    problem = Problem(groups_of(node))
    constructor = build(node).func
    numbers = {key: given for key, given in node.items() if isinstance(given, float)}
    assert "lr" in numbers
    for name, value in itertools.product(numbers, (math.nan, math.inf, -1, "a", True, None)):
        with pytest.raises(ValueError, match=rf"^Invalid {name}: .*\. Must be a finite number .*\.$"):
            constructor(problem.groups, **{**numbers, name: value})


@pytest.mark.parametrize("name", ["beta1", "beta2", "beta"])
def test_a_decay_of_one_is_refused(name):
    given = next(found for found in FIRST_ORDER.values() if name in found)
    with pytest.raises(ValueError, match=rf"^Invalid {name}: 1\.0\. Must be a finite number >= 0 and < 1\.$"):
        method_of(given, Problem(groups_of(given)), **{name: 1.0})


def test_a_second_method_on_the_same_groups_obeys_its_own_arguments(node):
    problem = Problem(groups_of(node))
    constructor = build(node).func
    constructor(problem.groups, lr=0.5).step(problem.loss)
    second = constructor(problem.groups, lr=0.25)
    assert (second.param_groups[0]["lr"], second.steps) == (0.25, 0)
    assert not second.state


def half_precision(node, size):
    """A float16 problem whose loss is `size` times that of its float32 twin. Losses, as ours, are of float32."""
    half, exact = (Problem(groups_of(node)) for _ in range(2))
    for weight in half.weights.values():
        weight.data = weight.data.half()
    for group in half.groups:
        group["weight"] = half.weights[group["name"]]
    for twin, weight in zip(exact.weights.values(), half.weights.values(), strict=True):
        twin.copy_(weight)
    # What flows back is a float16 number on its way, as in a model.
    return half, exact, lambda: half.loss().float().half().float() * size


@pytest.mark.parametrize(("size", "scale"), [(1e-8, 2.0**16), (0.5, 2.0**16), (300.0, 2.0**6), (60_000.0, 1.0)])
def test_under_a_float16_base_no_gradient_vanishes_and_none_overflows(node, size, scale):
    half, exact, loss = half_precision(node, size)
    found = []
    for problem, closure in ((half, loss), (exact, lambda: exact.loss() * size)):
        method = method_of(node, problem, lr=0.0)
        method.update = lambda step, m=method: found.append([p.grad.clone() for p in m.parameters])
        method.step(closure)
        if problem is half:
            assert method.loss_scale == scale
            assert all(group["loss_scale"] == method.loss_scale for group in method.state_dict()["param_groups"])
        else:
            assert method.loss_scale == 1
    for ours, theirs in zip(*found, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0)
