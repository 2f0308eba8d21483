"""Probing and moving along a direction, and the numbers that directions are made of."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conformance.cases import METHODS, ZEROTH_ORDER, Problem, direction_of, groups_of, method_of, same_bits
from zo_runner.config.instantiate import build
from zo_runner.errors import Diverged
from zo_runner.methods import directions
from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.directions import DirectionPart, move
from zo_runner.methods.mezo import MeZO
from zo_runner.methods.queries import finite, losses_along
from zo_runner.methods.random import normal, signs


def test_losses_are_read_at_the_offsets_in_order_and_always_from_the_origin():
    theta, u = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    seen = []
    direction = [DirectionPart(theta, u, {"lr": 0.1})]
    losses = losses_along(
        lambda: seen.append(theta.clone()) or theta.sum() + theta[0], direction, (0.5, -0.5, 2.0, 0.0)
    )
    assert [s.tolist() for s in seen] == [[1.5, 1.5], [0.5, 2.5], [3.0, 0.0], [1.0, 2.0]]
    assert losses == [4.5, 3.5, 6.0, 4.0]
    assert theta.tolist() == [1.0, 2.0]


def test_a_direction_may_cover_part_of_a_tensor():
    theta = torch.zeros(3, 4)
    columns = [
        DirectionPart(theta[:, 1], torch.ones(3), {"lr": 0.5}),
        DirectionPart(theta[2, 2:], torch.ones(2), {"lr": 0.25}),
    ]
    assert losses_along(lambda: theta.sum(), columns, (1.0, -1.0)) == [5.0, -5.0]
    assert not theta.any()
    move(columns, 2.0)
    assert theta.tolist() == [[0, -1, 0, 0], [0, -1, 0, 0], [0, -1, -0.5, -0.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_whole_parameter_and_the_same_as_views_are_looked_at_in_the_same_points(dtype):
    """A parameter is pointed at other numbers, a view of it is overwritten: the same bits either way, in each dtype."""
    start, u = (
        normal((6, 5), 0, "start").to(dtype),
        normal((5, 6), 0, "u").to(torch.promote_types(dtype, torch.float32)),
    )
    seen = []
    for cut in (False, True):
        theta = torch.nn.Parameter(start.clone().T, requires_grad=False)  # not contiguous
        held, points = theta.data_ptr(), []
        rows = zip(theta, u, strict=True) if cut else [(theta, u)]
        direction = [DirectionPart(view, component, {"lr": 0.1}) for view, component in rows]
        losses_along(
            lambda theta=theta, points=points: points.append(theta.clone()) or 0.0, direction, (0.1, -0.1, 0.0)
        )
        assert theta.data_ptr() == held
        assert theta.stride() == (1, 5)
        seen.append([*points, theta.clone()])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    assert torch.equal(seen[0][-1], start.T)


def test_an_offset_is_one_pass_over_a_parameter_and_a_step_three():
    """Every number is written once for each query and once by the update, beside the numbers of the direction."""
    problem = Problem(groups_of(METHODS["mezo"]))
    method, losses = method_of(METHODS["mezo"], problem), iter([2.0, 1.0])
    with Written() as written:
        method.step(lambda: next(losses))
    assert written.numbers == 3 * len(problem.flat())
    draws = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "KEPT_NUMBERS", 0)
        patch.setattr(method, "normal", lambda like, shape, *path: draws.append(shape) or normal(shape, 0, *path))
        method.step(problem.loss)
    assert len(draws) == 3 * len(problem.parameters)


class Written(TorchDispatchMode):
    """Counts the numbers that are written to tensors other than random ones."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        drawn_or_nothing = (torch.ops.aten.randn, torch.ops.aten.empty_like, torch.ops.aten.detach)
        if isinstance(out, torch.Tensor) and func.overloadpacket not in drawn_or_nothing:
            self.numbers += out.numel()
        return out


@pytest.mark.parametrize("closure_fails", ["at once", "at the second point"])
def test_parameters_that_the_closure_held_before_are_theirs_again_when_it_raises(closure_fails):
    theta = torch.nn.Parameter(torch.tensor([-0.0, 1e-40, 3e7]), requires_grad=False)
    own, before = theta.data, theta.data.clone()
    losses = iter([] if closure_fails == "at once" else [1.0])
    with pytest.raises(StopIteration):
        losses_along(lambda: next(losses), [DirectionPart(theta, torch.ones(3), {"lr": 1.0})], (0.1, -0.1))
    assert same_bits([theta, own], [before, before])
    assert theta.data_ptr() == own.data_ptr()


@pytest.mark.parametrize(("lr", "slope"), [(0.0, 3.0), (0.1, 0.0), (-0.0, 3.0)])
def test_no_rate_or_no_slope_moves_no_bit(lr, slope):
    theta = torch.tensor([-0.0, 1e-40, 1.0])
    before = theta.clone()
    move([DirectionPart(theta, torch.ones(3), {"lr": lr})], slope)
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


PLAIN = [n for n in ZEROTH_ORDER.values() if build(n).func.direction in (AR1ZO.direction, MeZO.direction)]


@pytest.mark.parametrize("node", PLAIN, ids=str)
def test_the_numbers_of_a_direction_come_from_the_documented_streams(node, problem):
    method = method_of(node, problem, seed=4)
    names = (
        [(name,) for name in problem.groups[0]["names"]]
        if node["trains"] == "full"
        else [(group["name"], side) for group in problem.groups for side in "AB"]
    )
    draw = signs if node.get("distribution") == "rademacher" else normal
    for step in (0, 5):
        for path, part in zip(names, method.direction(step), strict=True):
            assert torch.equal(part.component, draw(part.view.shape, 4, "direction", step, *path))


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
