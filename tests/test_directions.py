"""Probing and moving along a direction, and the numbers that directions are made of."""

import pytest
import torch

from tests.conformance.cases import ZEROTH_ORDER, Problem, direction_of, groups_of, method_of, same_bits
from zo_runner import directions
from zo_runner.directions import Part, finite, losses_along, move
from zo_runner.errors import Diverged
from zo_runner.seeds import normal


def test_losses_are_read_at_the_offsets_in_order_and_always_from_the_origin():
    theta, u = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    seen = []
    direction = [Part(theta, u, {"lr": 0.1})]
    losses = losses_along(
        lambda: seen.append(theta.clone()) or theta.sum() + theta[0], direction, (0.5, -0.5, 2.0, 0.0)
    )
    assert [s.tolist() for s in seen] == [[1.5, 1.5], [0.5, 2.5], [3.0, 0.0], [1.0, 2.0]]
    assert losses == [4.5, 3.5, 6.0, 4.0]
    assert theta.tolist() == [1.0, 2.0]


def test_a_direction_may_cover_part_of_a_tensor():
    theta = torch.zeros(3, 4)
    columns = [Part(theta[:, 1], torch.ones(3), {"lr": 0.5}), Part(theta[2, 2:], torch.ones(2), {"lr": 0.25})]
    assert losses_along(lambda: theta.sum(), columns, (1.0, -1.0)) == [5.0, -5.0]
    assert not theta.any()
    move(columns, 2.0)
    assert theta.tolist() == [[0, -1, 0, 0], [0, -1, 0, 0], [0, -1, -0.5, -0.5]]


@pytest.mark.parametrize(("lr", "slope"), [(0.0, 3.0), (0.1, 0.0), (-0.0, 3.0)])
def test_no_rate_or_no_slope_moves_no_bit(lr, slope):
    theta = torch.tensor([-0.0, 1e-40, 1.0])
    before = theta.clone()
    move([Part(theta, torch.ones(3), {"lr": lr})], slope)
    assert same_bits([theta], [before])


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_is_never_replaced(loss):
    for value in (loss, torch.tensor(loss), torch.tensor(loss, dtype=torch.bfloat16)):
        with pytest.raises(Diverged, match=f"^the loss is {loss}$"):
            finite(value)


def test_a_finite_loss_is_passed_on_exactly():
    assert finite(torch.tensor(0.1)) == torch.tensor(0.1).double().item()
    assert finite(-1e300) == -1e300


def test_directions_are_keyed_by_name_so_a_module_more_or_fewer_shifts_no_other(node):
    if node["trains"] == "full":
        problem = Problem(groups_of(node))
        (group,) = problem.groups
        group["params"], group["names"] = group["params"][::-1], group["names"][::-1]
        parts = dict(zip(group["names"], method_of(node, problem).direction(3), strict=True))
        original = method_of(node, Problem(groups_of(node))).direction(3)
        assert all(
            torch.equal(part.component, parts[name].component)
            for name, part in zip(group["names"][::-1], original, strict=True)
        )
        return
    whole = Problem(groups_of(node))
    few = Problem(groups_of(node))
    few.groups = few.groups[1:]
    every = list(method_of(node, whole).direction(3))
    assert all(
        torch.equal(x.component, y.component) for x, y in zip(every[2:], method_of(node, few).direction(3), strict=True)
    )


@pytest.mark.parametrize("node", [n for n in ZEROTH_ORDER.values() if not {"rank", "num_signs"} & set(n)], ids=str)
def test_the_numbers_of_a_direction_come_from_the_documented_streams(node, problem):
    method = method_of(node, problem, seed=4)
    names = (
        [(name,) for name in problem.groups[0]["names"]]
        if node["trains"] == "full"
        else [(group["name"], side) for group in problem.groups for side in "AB"]
    )
    for step in (0, 5):
        for path, part in zip(names, method.direction(step), strict=True):
            assert torch.equal(part.component, normal(part.view.shape, 4, "direction", step, *path))


def test_a_direction_yields_the_same_numbers_each_time_it_is_read(node, problem):
    u = method_of(node, problem).direction(2)
    once, again = [part.component for part in u], [part.component for part in u]
    assert once
    assert same_bits(once, again)


def test_no_two_tensors_of_a_direction_share_numbers(node):
    """Modules of one shape, and the two sides of a square one, are drawn independently."""
    problem = Problem(groups_of(node, widths=(5, 5, 5, 5)))
    components = [part.component.flatten() for part in method_of(node, problem).direction(0)]
    for i, x in enumerate(components):
        assert not any(torch.equal(x, y) for y in components[i + 1 :])


def test_a_direction_is_the_same_for_every_value_of_the_parameters(node, problem):
    method = method_of(node, problem)
    before = direction_of(method, 1)
    for p in problem.parameters:
        p.mul_(3.0)
    assert torch.equal(direction_of(method, 1), before)


@pytest.mark.parametrize("node", [n for n in ZEROTH_ORDER.values() if "atoms" not in n], ids=str)
def test_a_direction_too_large_to_keep_is_drawn_again_and_takes_the_same_steps(monkeypatch, node):
    def trained(kept_numbers):
        monkeypatch.setattr(directions, "KEPT_NUMBERS", kept_numbers)
        problem = Problem(groups_of(node))
        method = method_of(node, problem, seed=3)
        direction = method.direction(0)
        assert list(direction)
        assert (direction._kept is None) == (kept_numbers == 0)
        for _ in range(5):
            method.step(problem.loss)
        return problem.parameters

    assert same_bits(trained(0), trained(1000))
