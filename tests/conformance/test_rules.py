"""The rules that methods keep.

`node` and `problem` run a test once per zeroth-order file of conf/method/, and under `every_method` once per file.
"""

import copy
import io
import itertools
import math
import random

import numpy as np
import pytest
import torch

from tests.conformance.broken import (
    AnotherDrawOnRefresh,
    LOZOMThatDrawsOnInUpdates,
    LOZOThatDrawsOnInUpdates,
    RestoreBySubtraction,
    SignsOfAnotherDraw,
)
from tests.conformance.cases import (
    CASES,
    RANK,
    ZEROTH_ORDER,
    Problem,
    calls_of,
    direction_of,
    groups_of,
    method_of,
    same_bits,
)
from tests.conformance.rules import assert_probe_leaves_every_bit, assert_updates_along_what_was_perturbed
from zo_runner.errors import Diverged
from zo_runner.methods.queries import losses_along
from zo_runner.methods.random import normal

# Longer than any cycle of atoms here, and than the period at which low-rank methods refresh.
MANY_STEPS = 60

every_method = pytest.mark.parametrize("node", CASES.values(), ids=CASES.keys())


def run(method, problem, steps):
    """The parameters after each step."""
    trajectory = []
    for _ in range(steps):
        method.step(problem.loss)
        trajectory.append(problem.values())
    return trajectory


def fails_at(query, problem, failure):
    """A closure that calls `failure` instead of returning its loss at one query, counted from 0."""
    count = itertools.count()

    def closure():
        return failure() if next(count) == query else problem.loss()

    return closure


def states_of(method):
    """The state of every parameter, in order."""
    return [method.state.get(param, {}) for group in method.param_groups for param in group["params"]]


def same_state(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def raise_(error):
    raise error


def global_states():
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # the state that must not move


def same_states(left, right):
    numpy_same = all(np.array_equal(x, y) for x, y in zip(left[1], right[1], strict=True))
    return torch.equal(left[0], right[0]) and numpy_same and left[2] == right[2]


def test_updates_along_the_direction_it_perturbed_on_every_step(node, problem):
    method = method_of(node, problem, lr=1e-2, eps=1e-2)
    assert_updates_along_what_was_perturbed(method, problem, MANY_STEPS)


def test_a_half_turned_direction_is_the_same_in_b_and_the_opposite_in_a(node):
    """Slopes of what is linear in B, linear in A, and of their product: kept, turned, and without a curvature."""
    if node["trains"] == "full":
        assert not method_of(node, Problem(groups_of(node))).has_halves
        return
    problem = Problem(groups_of(node, dtype=torch.float64))
    method = method_of(node, problem, eps=0.1)

    def weighed(side):
        params = [group["params"]["AB".index(side)] for group in problem.groups]
        return sum((normal(tuple(p.shape), 1, side, i).double() * p).sum() for i, p in enumerate(params))

    def product():
        pairs = [group["params"] for group in problem.groups]
        return sum((normal((len(b), a.shape[1]), 1, "G", i).double() * (b @ a)).sum() for i, (a, b) in enumerate(pairs))

    u, turned = method.direction(3), method.flipped_in_A(3)
    for loss, sign in ((lambda: weighed("A"), -1.0), (lambda: weighed("B"), 1.0)):
        (plus, minus), (turned_plus, turned_minus) = (losses_along(loss, v, (0.1, -0.1)) for v in (u, turned))
        assert abs(plus - minus) > 1e-3
        assert turned_plus - turned_minus == pytest.approx(sign * (plus - minus), rel=1e-9)
    curvatures = []
    for v in (u, turned):
        plus, middle, minus = losses_along(product, v, (0.1, 0.0, -0.1))
        curvatures.append((plus - 2 * middle + minus) / 0.01)
    assert abs(curvatures[0]) > 1e-3
    assert curvatures[1] == pytest.approx(-curvatures[0], rel=1e-9)


def test_an_update_along_another_draw_is_caught():
    problem = Problem(groups_of({"trains": "full"}))
    with pytest.raises(AssertionError, match=r"step 4: the update has cosine -?0\.[0-3]"):
        assert_updates_along_what_was_perturbed(
            AnotherDrawOnRefresh(problem.groups, lr=1e-3, eps=1e-2), problem, MANY_STEPS
        )


@pytest.mark.parametrize("trains", ["full", "adapter"])
@pytest.mark.parametrize("broken", [LOZOThatDrawsOnInUpdates, LOZOMThatDrawsOnInUpdates])
def test_a_lozo_whose_refresh_steps_update_along_another_draw_is_caught(broken, trains):
    """Of the seven steps of a subspace only the first is wrong, and it is the one that is named."""
    problem = Problem(groups_of({"trains": trains, "scaling": "canonical"}))
    method = broken(problem.groups, lr=1e-2, eps=1e-2, interval=7)
    with pytest.raises(AssertionError, match=r"step 7: the update has cosine -?0\.[0-4]"):
        assert_updates_along_what_was_perturbed(method, problem, MANY_STEPS)


def test_signs_of_another_draw_are_caught():
    problem = Problem(groups_of({"trains": "full"}))
    method = SignsOfAnotherDraw(problem.groups, lr=1e-2, eps=1e-2)
    with pytest.raises(AssertionError, match=r"step 4: 0\.[3-6]\d of the coordinates go down"):
        assert_updates_along_what_was_perturbed(method, problem, MANY_STEPS)


def test_a_probe_leaves_every_bit(node, problem):
    assert_probe_leaves_every_bit(method_of(node, problem), problem)


def test_restoring_by_subtraction_is_caught():
    problem = Problem(groups_of({"trains": "full"}))
    with pytest.raises(AssertionError, match="the probe of step 0 changed a parameter"):
        assert_probe_leaves_every_bit(RestoreBySubtraction(problem.groups, lr=1e-3, eps=1e-3), problem)


@every_method
def test_parameters_are_whole_and_the_step_repeatable_when_the_closure_raises(node, problem):
    """On an exception of any kind: a KeyboardInterrupt, which is no Exception."""
    method = method_of(node, problem)
    run(method, problem, 3)
    undisturbed = copy.deepcopy(problem)
    expected = run(_resumed(node, method, undisturbed), undisturbed, 1)[-1]
    before = problem.values()
    for query in range(calls_of(method)):
        with pytest.raises(KeyboardInterrupt):
            method.step(fails_at(query, problem, lambda: raise_(KeyboardInterrupt())))
        assert same_bits(problem.parameters, before)
        assert method.steps == 3
    assert same_bits(run(method, problem, 1)[-1], expected)


@every_method
def test_a_loss_that_is_not_finite_raises_diverged_and_leaves_every_bit(node, problem):
    method = method_of(node, problem)
    run(method, problem, 2)
    before = problem.values()
    for query in range(calls_of(method)):
        for value in (math.nan, torch.tensor(math.inf)):
            with pytest.raises(Diverged):
                method.step(fails_at(query, problem, lambda value=value: value))
            assert same_bits(problem.parameters, before)
            assert method.steps == 2


@every_method
def test_the_global_generators_are_neither_read_nor_moved(node):
    trajectories = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # the global generator is the point
        problem = Problem(groups_of(node))
        before = global_states()
        method = method_of(node, problem)
        assert same_states(global_states(), before)
        trajectories.append(run(method, problem, 2 * RANK))
        assert same_states(global_states(), before)
    assert all(map(same_bits, *trajectories))


def test_a_step_makes_the_queries_it_declares(node, problem):
    calls = itertools.count()
    method = method_of(node, problem)
    for step in range(1, 2 * RANK + 1):
        method.step(lambda: problem.loss() + 0 * next(calls))
        assert next(copy.copy(calls)) == step * method.queries_per_step


def test_no_query_builds_a_graph(node, problem):
    for parameter in problem.parameters:
        parameter.requires_grad_(True)
    required = []
    method_of(node, problem).step(lambda: required.append(problem.loss().requires_grad) or problem.loss())
    assert required
    assert not any(required)
    assert all(p.grad is None for p in problem.parameters)


@every_method
def test_lr_zero_changes_no_bit(node, problem):
    for parameter in problem.parameters:
        parameter.flatten()[:2] = torch.tensor([-0.0, 1e-40])
    before = problem.values()
    method = method_of(node, problem, lr=0.0)
    run(method, problem, 2 * RANK)
    assert same_bits(problem.parameters, before)
    assert method.steps == 2 * RANK


def test_a_slope_of_zero_changes_no_bit(node, problem):
    for parameter in problem.parameters:
        parameter.flatten()[0] = -0.0
    before = problem.values()
    method_of(node, problem).step(lambda: torch.tensor(0.5))
    assert same_bits(problem.parameters, before)


def _resumed(node, method, problem, **arguments):
    """A fresh method on `problem`, loaded from what `method` would write to a file."""
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    fresh = method_of(node, problem, **arguments)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@every_method
@pytest.mark.parametrize("k", [0, RANK - 1, 2 * RANK + 1])
def test_save_at_step_k_load_and_continue_is_the_uninterrupted_run(node, problem, k):
    steps = 3 * RANK
    whole = run(method_of(node, problem, seed=7), problem, steps)
    first = Problem(groups_of(node))
    method = method_of(node, first, seed=7)
    run(method, first, k)
    second = copy.deepcopy(first)
    # The constructor's arguments differ on purpose: the file decides.
    continued = run(_resumed(node, method, second, lr=0.5, eps=0.1, seed=1), second, steps - k)
    assert all(map(same_bits, continued, whole[k:]))


def test_same_seed_same_trajectory_and_another_seed_another(node):
    problems = [Problem(groups_of(node)) for _ in range(3)]
    one, same, other = (
        run(method_of(node, problem, seed=seed), problem, 5) for problem, seed in zip(problems, (1, 1, 2), strict=True)
    )
    assert all(map(same_bits, one, same))
    assert not any(map(same_bits, one, other))


def test_directions_of_different_steps_differ(node, problem):
    method = method_of(node, problem)
    directions = [direction_of(method, step) for step in range(2 * RANK)]
    assert all(not torch.equal(u, v) for u, v in itertools.combinations(directions, 2))
    assert torch.equal(direction_of(method, 3), directions[3])


def test_the_report_follows_from_the_losses_that_were_queried(node, problem):
    """Two-sided: their mean, one slope. Else the loss at theta, and a slope for every other query."""
    method = method_of(node, problem)
    for step in range(RANK + 1):
        before, losses = problem.flat(), []

        def closure(before=before, losses=losses):
            losses.append((torch.equal(problem.flat(), before), float(problem.loss())))
            return problem.loss()

        returned = method.step(closure)
        at_theta = [loss for unmoved, loss in losses if unmoved]
        moved = [loss for unmoved, loss in losses if not unmoved]
        if method.two_sided:
            plus, minus = moved
            assert returned == method.report.loss == (plus + minus) / 2
            assert method.report.slopes == ((plus - minus) / (2 * method.eps),)
            curvature = [(plus + minus - 2 * middle) / method.eps**2 for middle in at_theta]
            assert curvature == [c for c in (method.report.curvature,) if c is not None]
        else:
            assert [returned] == [method.report.loss] == at_theta
            assert method.report.slopes == tuple((loss - at_theta[0]) / method.eps for loss in moved)
        assert (method.report.step, method.report.lr) == (step, 0.05)


def test_a_step_can_be_taken_again_from_its_report_alone(node, problem):
    method = method_of(node, problem, seed=3)
    replayed = Problem(groups_of(node))
    replayer = method_of(node, replayed, seed=3)
    for _ in range(2 * RANK + 1):
        method.step(problem.loss)
        replayer.replay(method.report)
        assert same_bits(replayed.parameters, problem.parameters)
        assert replayer.steps == method.steps
        assert all(map(same_state, states_of(replayer), states_of(method)))


@pytest.mark.parametrize("node", [node for node in ZEROTH_ORDER.values() if "atoms" not in node], ids=str)
def test_state_is_float32_under_bfloat16_parameters_also_when_it_was_loaded(node):
    problem = Problem(groups_of(node, dtype=torch.bfloat16))
    method = method_of(node, problem)
    run(method, problem, 2)
    resumed = _resumed(node, method, copy.deepcopy(problem))
    for state, loaded in zip(states_of(method), states_of(resumed), strict=True):
        assert all(value.dtype == torch.float32 for value in state.values())
        assert same_state(state, loaded)


@pytest.mark.parametrize(
    "node", [n for n in ZEROTH_ORDER.values() if n["trains"] == "adapter"], ids=lambda n: n["name"]
)
def test_every_group_moves_with_its_own_lr(node):
    moves = []
    for lr in (0.05, 0.1, 0.0):
        problem = Problem(groups_of(node))
        problem.groups[1]["lr"] = lr
        before = problem.values()
        method_of(node, problem).step(problem.loss)
        moves.append([after - start for after, start in zip(problem.parameters, before, strict=True)])
    once, twice, never = ([move[2], move[3]] for move in moves)
    assert all(torch.allclose(2 * x, y, rtol=1e-3, atol=1e-7) and y.any() for x, y in zip(once, twice, strict=True))
    assert not any(x.any() for x in never)
    others = [[move[i] for i in (0, 1, 4, 5)] for move in moves]
    assert same_bits(others[0], others[1])
    assert same_bits(others[0], others[2])


@every_method
@pytest.mark.parametrize(
    "schedule",
    [
        lambda method: torch.optim.lr_scheduler.LambdaLR(method, lambda step: 0.5**step),
        lambda method: torch.optim.lr_scheduler.OneCycleLR(method, max_lr=0.1, total_steps=6, cycle_momentum=False),
    ],
    ids=["lambda", "one_cycle"],
)
def test_a_scheduler_sets_the_lr_of_each_step_without_a_warning(node, problem, schedule):
    by_hand = Problem(groups_of(node))
    plain = method_of(node, by_hand)
    method = method_of(node, problem)
    scheduler = schedule(method)
    rates = set()
    for _ in range(5):
        for group in plain.param_groups:
            group["lr"] = scheduler.get_last_lr()[0]
        rates.add(scheduler.get_last_lr()[0])
        method.step(problem.loss)
        plain.step(by_hand.loss)
        assert method.report.lr == scheduler.get_last_lr()[0]
        scheduler.step()
    assert len(rates) == 5
    assert same_bits(problem.parameters, by_hand.parameters)


def test_an_invalid_argument_is_refused_by_name(node, problem):
    constructor = type(method_of(node, problem))
    wrong = (math.nan, math.inf, -1, "a", True, None)
    for name, value in [*(("lr", v) for v in wrong), *(("eps", v) for v in (*wrong, 0))]:
        with pytest.raises(ValueError, match=rf"^Invalid {name}: .*\. Must be .*\.$"):
            constructor(problem.groups, **{"lr": 0.1, "eps": 0.1, name: value})


def test_a_second_method_on_the_same_groups_obeys_its_own_arguments(node, problem):
    """Groups made once serve a whole search over learning rates; nothing of one method leaks into the next."""
    constructor = type(method_of(node, problem))
    constructor(problem.groups, lr=0.5, eps=0.1, seed=1).step(problem.loss)
    second = constructor(problem.groups, lr=0.25, eps=0.2, seed=2)
    settings = (second.param_groups[0]["lr"], second.eps, second.seed, second.steps)
    assert settings == (0.25, 0.2, 2, 0)
