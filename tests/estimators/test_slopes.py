"""What the slope estimates: laws that hold for every method, on small problems in float64."""

import numpy as np
import pytest
import torch

from tests.conformance.cases import Problem, direction_of, flatten, groups_of, method_of
from zo_runner.seeds import normal

# Few coordinates, so that many draws are affordable: 18 with trains=full, 30 in LoRA pairs.
FEW = {"widths": (3, 2, 3, 2), "rank": 2}
NUM_STEPS = 1200


@pytest.fixture
def problem(node):
    return Problem(groups_of(node, dtype=torch.float64))


def slopes(method, closure, steps):
    """The slopes of a method whose learning rate is 0."""
    found = []
    for _ in range(steps):
        method.step(closure)
        found.append(method.report.slopes[0])
    return np.array(found)


def test_on_a_linear_loss_the_slope_is_exact(node, problem):
    c = normal((len(problem.flat()),), 0, "c").double()
    method = method_of(node, problem, lr=0.0, eps=0.1)
    found = slopes(method, lambda: c @ problem.flat() + 0.25, 12)
    exact = np.array([float(c @ direction_of(method, step)) for step in range(12)])
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


def test_the_error_of_the_slope_falls_with_eps_squared(node, problem):
    gradient = flatten(problem.gradient())
    radii = 2.0 ** -np.arange(5, 10)
    errors = []
    for eps in radii:
        method = method_of(node, problem, lr=0.0, eps=float(eps))
        exact = np.array([float(gradient @ direction_of(method, step)) for step in range(8)])
        errors.append(np.sqrt(np.mean((slopes(method, problem.loss, 8) - exact) ** 2)))
    exponent = np.polyfit(np.log(radii), np.log(errors), 1)[0]
    assert exponent == pytest.approx(2.0, abs=0.1)


def test_slope_times_direction_is_an_unbiased_gradient_of_what_is_queried(node):
    """On the queried coordinates of each step; and, summed over a pass of the atoms, on all coordinates."""
    problem = Problem(groups_of(node, **FEW, dtype=torch.float64))
    gradient = flatten(problem.gradient())
    method = method_of(node, problem, lr=0.0, eps=1e-4)
    steps_per_pass = FEW["rank"] if method.atom(0) is not None else 1
    num_passes = NUM_STEPS // steps_per_pass
    estimates = torch.zeros(num_passes, steps_per_pass, len(gradient), dtype=torch.float64)
    queried = torch.stack([direction_of(method, step) != 0 for step in range(steps_per_pass)])
    for i in range(num_passes):
        for j in range(steps_per_pass):
            seen = []
            method.step(lambda seen=seen: seen.append(problem.flat()) or problem.loss())
            u = (seen[0] - seen[1]) / (2 * method.eps)
            assert torch.equal(u != 0, queried[j])
            estimates[i, j] = method.report.slopes[0] * u
    assert (queried.sum(dim=0) == 1).all(), "a pass queries every coordinate once"
    for estimate, target in [(estimates[:, j], gradient * queried[j]) for j in range(steps_per_pass)] + [
        (estimates.sum(dim=1), gradient)
    ]:
        mean, standard_error = estimate.mean(dim=0), estimate.std(dim=0) / num_passes**0.5
        assert ((mean - target).abs() <= 5 * standard_error).all()
        # The mean is known well enough for the line above to mean something.
        assert standard_error.max() < 0.08 * target.norm()
        assert torch.cosine_similarity(mean, target, dim=0) > 0.97
        assert float(mean @ target / target.norm() ** 2) == pytest.approx(1.0, abs=0.2)
