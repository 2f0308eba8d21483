"""What the slope estimates: laws that hold for every method, on small problems in float64."""

import math

import numpy as np
import pytest
import torch

from tests.conformance.cases import Problem, direction_of, flatten, groups_of, method_of
from zo_runner.methods.random import normal

# Few coordinates, so that many draws are affordable: 18 with trains=full, 30 in LoRA pairs.
FEW = {"widths": (3, 2, 3, 2), "rank": 2}
NUM_DIRECTIONS = 1200


@pytest.fixture
def problem(node):
    return Problem(groups_of(node, dtype=torch.float64))


def steps_of(method, problem, steps, closure=None):
    """(u, slope) of every direction of every step of a method whose learning rate is 0, with what the slopes are of."""
    for _ in range(steps):
        expected, before, seen = direction_of(method, method.steps), problem.flat(), []

        def observed(seen=seen):
            seen.append(problem.flat())
            return (closure or problem.loss)()

        method.step(observed)
        shifts = [shift for point in seen if (shift := (point - before) / method.eps).any()]
        directions = [(shifts[0] - shifts[1]) / 2] if method.two_sided else shifts
        assert torch.allclose(directions[0], expected, rtol=1e-6, atol=1e-9)
        yield list(zip([expected, *directions[1:]], method.report.slopes, strict=True))


def test_on_a_linear_loss_the_slope_is_exact(node, problem):
    c = normal((len(problem.flat()),), 0, "c").double()
    method = method_of(node, problem, lr=0.0, eps=0.1)
    for measured in steps_of(method, problem, 12, lambda: c @ problem.flat() + 0.25):
        for u, slope in measured:
            assert slope == pytest.approx(float(c @ u), rel=1e-12, abs=1e-11)


def test_the_error_of_the_slope_falls_with_eps_squared_or_one_sided_with_eps(node, problem):
    gradient = flatten(problem.gradient())
    radii = 2.0 ** -np.arange(5, 10)
    errors = []
    for eps in radii:
        method = method_of(node, problem, lr=0.0, eps=float(eps))
        wrong = [slope - float(gradient @ u) for step in steps_of(method, problem, 8) for u, slope in step]
        errors.append(np.sqrt(np.mean(np.square(wrong))))
    exponent = np.polyfit(np.log(radii), np.log(errors), 1)[0]
    assert exponent == pytest.approx(2.0 if method.two_sided else 1.0, abs=0.1)


# What makes the direction of every step a fresh draw of unit covariance, so that slope times direction is unbiased.
FRESH = {"interval": 1, "smoothing": 0.0}


def test_slope_times_direction_is_an_unbiased_gradient_of_what_is_queried(node):
    """On the queried coordinates of each step; and, summed over a pass of the atoms, on all coordinates."""
    problem = Problem(groups_of(node, **FEW, dtype=torch.float64))
    gradient = flatten(problem.gradient())
    fresh = {name: value for name, value in FRESH.items() if name in node}
    method = method_of(node, problem, lr=0.0, eps=1e-4, **fresh)
    steps_per_pass = FEW["rank"] if method.atom(0) is not None else 1
    queries = method.queries_per_step // 2 if method.two_sided else method.queries_per_step - 1
    num_passes = math.ceil(NUM_DIRECTIONS / steps_per_pass / queries)
    queried = torch.stack([direction_of(method, step) != 0 for step in range(steps_per_pass)])
    estimates = torch.stack(
        [
            torch.stack([slope * u for u, slope in measured]).mean(dim=0)
            for measured in steps_of(method, problem, num_passes * steps_per_pass)
        ]
    ).reshape(num_passes, steps_per_pass, -1)
    assert (queried.sum(dim=0) == 1).all(), "a pass queries every coordinate once"
    for estimate, target in [(estimates[:, j], gradient * queried[j]) for j in range(steps_per_pass)] + [
        (estimates.sum(dim=1), gradient)
    ]:
        mean, standard_error = estimate.mean(dim=0), estimate.std(dim=0) / num_passes**0.5
        assert ((mean - target).abs() <= 5 * standard_error).all()
        # The mean is known well enough for the line above to mean something.
        assert standard_error.max() < 0.1 * target.norm()
        assert torch.cosine_similarity(mean, target, dim=0) > 0.97
        assert float(mean @ target / target.norm() ** 2) == pytest.approx(1.0, abs=0.2)
