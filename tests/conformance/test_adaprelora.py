"""AdaPreLoRA does what its derivation says: the best change of W in the weighted norm, and the most balanced such."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conformance.cases import FIRST_ORDER, METHODS, Problem, groups_of, method_of
from zo_runner.errors import Diverged
from zo_runner.methods import AdaPreLoRA
from zo_runner.methods.adaprelora import factor_steps
from zo_runner.methods.random import normal

NODE = FIRST_ORDER["adaprelora"]
OUT, IN, RANK, SCALING = 7, 6, 3, 1.7


def draw(*path, shape):
    return normal(shape, 0, *path).double()


class Case:
    """One module with a gradient and positive statistics, and the two halves of the step that AdaPreLoRA takes."""

    def __init__(self, seed=0, *, identity=False):
        self.a, self.b = draw("A", seed, shape=(RANK, IN)), draw("B", seed, shape=(OUT, RANK))
        self.g = draw("G", seed, shape=(OUT, IN))
        self.d_R, self.d_C = (draw(name, seed, shape=(n,)).exp() for name, n in (("R", OUT), ("C", IN)))
        if identity:
            self.d_R, self.d_C = torch.ones_like(self.d_R), torch.ones_like(self.d_C)
        g_a, g_b = SCALING * self.b.T @ self.g, SCALING * self.g @ self.a.T
        self.delta_a, self.delta_b = factor_steps(
            self.a, self.b, g_a, g_b, self.d_R, self.d_C, scaling=SCALING, damping=0.0
        )

    def change(self, delta_a, delta_b):
        """First-order change of W."""
        return SCALING * (delta_b @ self.a + self.b @ delta_a)

    def norm2(self, x):
        """|| X ||_H^2 = <X, D_R X D_C>."""
        return float((x * (self.d_R[:, None] * x * self.d_C)).sum())

    def misfit2(self, delta_a, delta_b):
        return self.norm2(self.change(delta_a, delta_b) - self.g / self.d_R[:, None] / self.d_C)

    def imbalance2(self, delta_a, delta_b):
        return self.norm2(delta_b @ self.a - self.b @ delta_a)

    def family(self, x):
        """Another member of the solutions: what X moves from one factor to the other."""
        return self.delta_a - x @ self.a, self.delta_b + self.b @ x


@pytest.mark.parametrize("seed", range(2))
def test_its_change_of_w_is_the_dense_weighted_least_squares_solution(seed):
    """min over all dA, dB of || s (dB A + B dA) - H^-1[G] ||_H, as one dense system in their entries."""
    case = Case(seed)
    columns = []
    for i in range(RANK * IN + OUT * RANK):
        unit = torch.zeros(RANK * IN + OUT * RANK, dtype=torch.float64)
        unit[i] = 1.0
        columns.append(case.change(unit[: RANK * IN].reshape(RANK, IN), unit[RANK * IN :].reshape(OUT, RANK)).flatten())
    dense = torch.stack(columns, dim=1)
    root = (case.d_R[:, None] * case.d_C).sqrt().flatten()
    target = (case.g / case.d_R[:, None] / case.d_C).flatten()
    solution = torch.linalg.lstsq((root[:, None] * dense), (root * target)[:, None], driver="gelsd").solution
    expected = (dense @ solution).reshape(OUT, IN)
    torch.testing.assert_close(case.change(case.delta_a, case.delta_b), expected, rtol=1e-9, atol=1e-9)
    assert case.misfit2(case.delta_a, case.delta_b) > 0.01 * case.norm2(case.g), "rank 3 cannot reach all of G"


@pytest.mark.parametrize("seed", range(2))
def test_x_equal_to_zero_minimises_the_weighted_imbalance_among_all_that_fit_as_well(seed):
    case = Case(seed)
    best, misfit = case.imbalance2(case.delta_a, case.delta_b), case.misfit2(case.delta_a, case.delta_b)
    for i in range(20):
        x = draw("X", seed, i, shape=(RANK, RANK)) * 10.0 ** (i % 5 - 2)
        plus, minus = (case.imbalance2(*case.family(sign * x)) for sign in (1, -1))
        assert min(plus, minus) > best
        # A parabola along X with its lowest point at 0.
        assert plus == pytest.approx(minus, rel=1e-9)
        assert case.misfit2(*case.family(x)) == pytest.approx(misfit, rel=1e-6)


def test_with_identity_statistics_it_is_the_balanced_projected_gradient():
    """The projection of G on the tangent space of rank-r matrices at BA, shared in equal halves."""
    case = Case(identity=True)
    p_b, p_a = case.b @ torch.linalg.pinv(case.b), torch.linalg.pinv(case.a) @ case.a
    from_b, from_a = SCALING * case.delta_b @ case.a, SCALING * case.b @ case.delta_a
    torch.testing.assert_close(from_b + from_a, p_b @ case.g + case.g @ p_a - p_b @ case.g @ p_a)
    half = p_b @ case.g @ p_a / 2
    torch.testing.assert_close(p_b @ from_b, half)
    torch.testing.assert_close(from_a @ p_a, half)


def modules(problem):
    """d loss / d W of every module, by autograd."""
    weights = list(problem.weights.values())
    for w in weights:
        w.requires_grad_(True)
    found = torch.autograd.grad(problem.loss(), weights)
    for w in weights:
        w.requires_grad_(False)
    return found


def test_the_statistics_are_moving_averages_of_the_row_and_column_means_of_squared_gradients():
    problem = Problem(groups_of(NODE, dtype=torch.float64))
    method = method_of(NODE, problem, beta=0.75)
    R, C = ([torch.zeros(n, dtype=torch.float64) for n in sizes] for sizes in ((6, 7, 3), (5, 6, 7)))
    for _ in range(5):
        for i, g in enumerate(modules(problem)):
            R[i] = 0.75 * R[i] + 0.25 * g.square().mean(dim=1)
            C[i] = 0.75 * C[i] + 0.25 * g.square().mean(dim=0)
        method.step(problem.loss)
        for i, group in enumerate(method.param_groups):
            state = method.state[group["params"][0]]
            assert set(state) == {"R", "C"}
            torch.testing.assert_close(state["R"], R[i])
            torch.testing.assert_close(state["C"], C[i])


def start(problem):
    """LoRA's own start: B = 0."""
    for group in problem.groups:
        group["params"][1].zero_()
    return problem


def test_the_first_step_moves_b_alone_and_fits_an_adafactor_step_on_the_rows_of_a():
    """At B = 0 the step's change of W is H^-1[G] projected on the span of A's rows, but for the damping."""
    problem = start(Problem(groups_of(NODE, dtype=torch.float64)))
    gradients, before = modules(problem), problem.values()
    method_of(NODE, problem, lr=1.0, damping=1e-12).step(problem.loss)
    for i, g in enumerate(gradients):
        a, b = problem.parameters[2 * i : 2 * i + 2]
        assert torch.equal(a, before[2 * i])
        second_moment = torch.outer(g.square().mean(dim=1), g.square().mean(dim=0)) / g.square().mean()
        change = problem.groups[i]["scaling"] * b @ a
        step = -g / second_moment.sqrt()
        d_C = g.square().mean(dim=0).sqrt()
        residual = (change - step) * d_C @ a.T
        torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-6)


def test_the_step_does_not_depend_on_the_unit_of_the_loss():
    ends = []
    for scale in (1.0, 1e-6, 1e6):
        problem = start(Problem(groups_of(NODE, dtype=torch.float64)))
        method = method_of(NODE, problem)
        for _ in range(6):
            method.step(lambda problem=problem, scale=scale: scale * problem.loss())
        ends.append(problem.flat())
    torch.testing.assert_close(ends[1], ends[0])
    torch.testing.assert_close(ends[2], ends[0])


def test_damping_bounds_the_step_of_a_while_b_is_small():
    """Without damping dA grows as 1 / |B| when B shrinks; with it, dA falls with B."""
    case = Case()
    sizes = {}
    for damping in (1e-2, 0.0):
        for factor in (1e-1, 1e-3, 1e-5):
            b = factor * case.b
            g_a, g_b = SCALING * b.T @ case.g, SCALING * case.g @ case.a.T
            delta_a, _ = factor_steps(case.a, b, g_a, g_b, case.d_R, case.d_C, scaling=SCALING, damping=damping)
            sizes[damping, factor] = float(delta_a.norm())
    assert sizes[0.0, 1e-3] == pytest.approx(100 * sizes[0.0, 1e-1], rel=1e-6)
    assert sizes[1e-2, 1e-5] < sizes[1e-2, 1e-3] < sizes[0.0, 1e-3] / 100
    assert sizes[1e-2, 1e-5] == pytest.approx(sizes[1e-2, 1e-3] / 100, rel=1e-2)


def test_one_gradient_of_a_weight_is_alive_at_a_time_and_none_after_the_step(monkeypatch):
    problem = Problem(groups_of(NODE))
    method, alive = method_of(NODE, problem), []
    read = AdaPreLoRA._read

    def counting(self, i, weight):
        alive.append(sum(w.grad is not None for w in self.frozen))
        read(self, i, weight)

    monkeypatch.setattr(AdaPreLoRA, "_read", counting)
    method.step(problem.loss)
    assert alive == [1] * len(problem.weights)
    assert all(w.grad is None for w in problem.weights.values())


class Largest(TorchDispatchMode):
    """The most numbers that any operation returns in one tensor."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_beyond_one_g_memory_is_that_of_the_factors(monkeypatch):
    """The update works on nothing larger than a factor, and keeps d_out + d_in numbers per module."""
    width, rank = 40, 2
    problem = Problem(groups_of(NODE, widths=(width, width, width), rank=rank))
    method, largest = method_of(NODE, problem), Largest()
    update = AdaPreLoRA.update

    def watched(self, step):
        with largest:
            update(self, step)

    monkeypatch.setattr(AdaPreLoRA, "update", watched)
    before = problem.flat()
    method.step(problem.loss)
    assert largest.numel == width * rank
    assert not torch.equal(problem.flat(), before)
    assert sum(tensor.numel() for state in method.state.values() for tensor in state.values()) == 2 * 2 * width
    assert not method._means


def test_statistics_that_overflow_raise_diverged(monkeypatch):
    problem = Problem(groups_of(NODE))
    method, before = method_of(NODE, problem), problem.flat()
    read = AdaPreLoRA._read

    def overflowing(self, i, weight):
        weight.grad = weight.grad * math.inf
        read(self, i, weight)

    monkeypatch.setattr(AdaPreLoRA, "_read", overflowing)
    with pytest.raises(Diverged, match=r"^the gradient is not finite$"):
        method.step(problem.loss)
    assert torch.equal(problem.flat(), before)
    assert not method.state


@pytest.mark.parametrize("missing", ["weight", "scaling"])
def test_groups_without_weight_or_scaling_are_refused(missing):
    groups = [{k: v for k, v in group.items() if k != missing} for group in groups_of(NODE)[1]]
    with pytest.raises(ValueError, match=r"^Invalid parameter group: layer0\. Must have its scaling and its weight"):
        AdaPreLoRA(groups, lr=0.1)


def test_a_weight_of_another_shape_is_refused():
    groups = groups_of(NODE)[1]
    groups[0]["weight"] = groups[0]["weight"].T
    with pytest.raises(ValueError, match=r"^Invalid parameter group: layer0\."):
        AdaPreLoRA(groups, lr=0.1)
    with pytest.raises(ValueError, match=r"^Invalid parameter group: .*\. Must be one pair"):
        AdaPreLoRA(groups_of(METHODS["mezo"])[1], lr=0.1)
