"""Calibration: curvature exact on quadratics, radii neither noisy nor biased, fall-backs that say so."""

import itertools
import math
import statistics

import pytest
import torch

from tests.conformance.cases import METHODS, groups_of, method_of
from tests.conformance.cases import Problem as Chain
from zo_runner.methods.directions import DirectionPart
from zo_runner.methods.random import normal
from zo_runner.training.calibration import EPS_GRID, calibrate, longest_update
from zo_runner.training.calibration_queries import CURVATURE_OVER_NOISE, ProbeCache, bias, probe

SIZE, PROBES = 5, 12


class Problem:
    """A loss of one float64 vector, and random directions on it."""

    def __init__(self, loss):
        self.theta = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
        self.loss = loss

    def directions(self):
        for i in range(PROBES):
            yield normal((SIZE,), 0, "direction", i).double()

    def points(self):
        for u in self.directions():
            yield [DirectionPart(self.theta, u, {"lr": 0.0})], None, lambda: self.loss(self.theta)


def quadratic(diagonal, slope=1.0):
    h = torch.tensor(diagonal, dtype=torch.float64)
    return Problem(lambda theta: slope * theta.sum() + (h * theta * theta).sum() / 2), h


def chosen(measure, **given):
    given = {"lr": None, "lr_scale": 0.1, "lr_default": 7.0, "eps": 1e-3, "eps_default": 1e-3, **given}
    return calibrate(ProbeCache(measure), **{"target_db": 20.0, **given})


def at(problem, sigma2=0.0):
    return lambda eps: probe(problem.points(), eps, sigma2)


# Slopes and curvatures


def test_slope_and_curvature_of_a_quadratic_are_exact():
    problem, h = quadratic([1.0, 2.0, 0.0, -3.0, 5.0])
    found = probe(problem.points(), 1e-2, 0.0)
    gradient = 1 + h * problem.theta
    for u, slope, curvature in zip(problem.directions(), found.slopes, found.curvatures, strict=True):
        assert slope == pytest.approx(float(gradient @ u), rel=1e-9)
        assert curvature == pytest.approx(float(u @ (h * u)), rel=1e-7)


def test_a_probe_leaves_the_parameters_as_they_are():
    problem, _ = quadratic([1.0] * SIZE)
    before = problem.theta.clone()
    probe(problem.points(), 0.3, 0.0)
    assert torch.equal(problem.theta, before)


@pytest.mark.parametrize("halves", [False, True])
def test_the_noise_of_a_curvature_has_the_variance_that_is_taken_off(halves):
    """Independent noise of variance sigma^2 in every loss: 6 sigma^2 / eps^4, and 5 from two directions."""
    eps, sigma, draws = 0.1, 0.01, 4000
    queried = itertools.count()
    noise = sigma * normal((5 * draws,), 3, "noise").double()
    u = [DirectionPart(torch.zeros(1), torch.ones(1), {"lr": 0.0})]
    found = probe([(u, u if halves else None, lambda: noise[next(queried)])] * draws, eps, sigma**2)
    assert len(found.curvatures) == draws
    # Four standard errors of a variance of Gaussian numbers.
    variance = statistics.variance(found.curvatures)
    assert variance == pytest.approx(found.curvature_noise, rel=4 * math.sqrt(2 / draws))
    assert found.curvature_noise == pytest.approx((5 if halves else 6) * sigma**2 / eps**4)


def test_halves_leave_what_each_factor_brings_and_nothing_of_both():
    """l = g a b + h a^2 / 2 + k b^2 / 2: along u = (x, y) a second difference has 2 g x y too; of halves not."""
    a, b = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-0.2], dtype=torch.float64)
    x, y = torch.tensor([1.5], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    group = {"lr": 0.0}
    u, turned = ([DirectionPart(a, sign * x, group), DirectionPart(b, y, group)] for sign in (1, -1))

    def loss():
        return (50 * a * b + 3 * a * a / 2 + 2 * b * b / 2).sum()

    (curvature,) = probe([(u, turned, loss)], 1e-2, 0.0).curvatures
    assert curvature == pytest.approx(3 * 1.5**2 + 2 * 0.7**2, rel=1e-9)
    (mixed,) = probe([(u, None, loss)], 1e-2, 0.0).curvatures
    assert mixed == pytest.approx(curvature + 2 * 50 * 1.5 * 0.7, rel=1e-9)


# The rate


def test_the_rate_is_the_scale_over_the_mean_size_of_the_curvature():
    problem, h = quadratic([1.0, 2.0, 0.0, -3.0, 5.0])
    mean = statistics.fmean(abs(float(u @ (h * u))) for u in problem.directions())
    for scale in (0.03, 0.1):
        found = chosen(at(problem), lr_scale=scale)
        assert found.lr == pytest.approx(scale / mean, rel=1e-6)
        assert found.curvature == pytest.approx(mean, rel=1e-6)
        assert found.notes == ()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_loss_of_another_unit_gets_a_rate_of_the_inverse_unit(factor):
    """The step lr * slope * u stays what it is."""
    diagonal = [1.0, 2.0, 0.5, 3.0, 5.0]
    one, other = (chosen(at(quadratic([f * d for d in diagonal], f)[0])) for f in (1.0, factor))
    assert other.lr == pytest.approx(one.lr / factor, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_length_is_the_same_for_a_loss_of_any_unit_and_is_the_rate_at_the_usual_slope(factor):
    diagonal = [1.0, 2.0, 0.5, 3.0, 5.0]
    problem = quadratic([factor * d for d in diagonal], factor)[0]
    slope = math.sqrt(statistics.fmean(g * g for g in at(problem)(1e-3).slopes))
    length = chosen(at(problem), normalized=True)
    assert length.lr == pytest.approx(chosen(at(problem)).lr * slope)
    assert length.lr == pytest.approx(chosen(at(quadratic(diagonal)[0]), normalized=True).lr, rel=1e-6)


def test_negative_curvature_is_counted_and_harmless():
    up, down = (chosen(at(quadratic([sign * 2.0] * SIZE)[0])) for sign in (1, -1))
    assert up.lr == pytest.approx(down.lr, rel=1e-9)
    assert (up.negative, down.negative) == (0.0, 1.0)
    mixed = chosen(at(quadratic([2.0, -2.0, 2.0, -2.0, 0.0])[0]))
    assert 0 < mixed.lr < math.inf
    assert 0 < mixed.negative < 1


@pytest.mark.parametrize("normalized", [False, True])
def test_no_update_is_longer_than_allowed(normalized):
    """Of rms slope g: lr g <= lr_scale longest; a length itself."""
    problem = quadratic([1.0, 2.0, 0.5, 3.0, 5.0])[0]
    free = chosen(at(problem), normalized=normalized)
    assert free.lr_max == math.inf
    slope = 1.0 if normalized else math.sqrt(at(problem)(1e-3).mean_square)
    for share in (0.5, 2.0):
        found = chosen(at(problem), normalized=normalized, longest=share * free.lr * slope / 0.1)
        assert found.lr_max == pytest.approx(share * free.lr)
        assert found.lr == pytest.approx(min(share, 1.0) * free.lr)


@pytest.mark.parametrize("name", ["lora_zo", "ar1zo"])
def test_updates_as_long_as_allowed_lead_a_as_far_as_allowed(name):
    """Steps of lr * slope * z with slopes of one size and random signs: a random walk, per atom one in `rank` steps."""
    steps, walk = 400, 0.7
    problem = Chain(groups_of(METHODS[name]))
    method = method_of(METHODS[name], problem)
    before = [group["params"][0].clone() for group in problem.groups]
    longest = longest_update(method, walk, steps)
    for step in range(steps):
        for part in method.direction(step):
            sign = 1.0 if normal((1,), 5, "sign", step) > 0 else -1.0
            part.view.add_(part.component, alpha=sign * longest)
    moved = [group["params"][0] - a for group, a in zip(problem.groups, before, strict=True)]
    squares = sum(float(d.square().sum()) for d in moved) / sum(float(a.square().sum()) for a in before)
    numbers = sum(a.numel() for a in before)
    # Five standard errors of a mean square of Gaussian numbers.
    assert squares == pytest.approx(walk**2, rel=5 * math.sqrt(2 / numbers))


def test_nothing_is_too_long_without_an_adapter_a_limit_or_a_known_number_of_steps():
    full, adapter = (method_of(METHODS[n], Chain(groups_of(METHODS[n]))) for n in ("mezo", "ar1zo"))
    assert longest_update(full, 1.0, 100) == math.inf
    assert longest_update(adapter, None, 100) == math.inf
    assert longest_update(adapter, 1.0, None) == math.inf
    assert longest_update(adapter, 1.0, 100) < math.inf


def test_a_given_rate_is_kept():
    found = chosen(at(quadratic([1.0] * SIZE)[0]), lr=0.25, eps=None)
    assert found.lr == 0.25
    assert math.isnan(found.curvature)


def test_where_the_curvature_drowns_in_noise_a_larger_radius_is_read():
    problem, _ = quadratic([1.0] * SIZE)
    mean_square = statistics.fmean(h * h for h in probe(problem.points(), 1e-2, 0.0).curvatures)
    # Visible at 1e-2, where the noise is 1e4 times smaller than at 1e-3.
    sigma2 = mean_square * (1e-2) ** 4 / 6 / (2 * CURVATURE_OVER_NOISE)
    found = chosen(at(problem, sigma2))
    assert found.curvature_eps == 1e-2
    assert found.eps == 1e-3
    assert found.notes == ()


def test_where_it_drowns_everywhere_the_documented_rate_is_taken_and_said():
    found = chosen(at(quadratic([1.0] * SIZE)[0], sigma2=1e3))
    assert found.lr == 7.0
    assert math.isnan(found.curvature)
    (note,) = found.notes
    assert note == "the curvature drowns in evaluation noise: lr=7 is the method's documented one"


def test_where_nothing_can_be_measured_both_fall_back():
    found = chosen(lambda eps: None, eps=None)
    assert (found.lr, found.eps) == (7.0, 1e-3)
    assert len(found.notes) == 2


def test_the_curvature_is_not_read_below_the_documented_radius():
    """At the kinks of ReLU it would grow without bound."""
    asked = []

    def measure(eps):
        asked.append(eps)
        return probe(quadratic([1.0] * SIZE)[0].points(), eps, 0.0)

    assert chosen(measure, eps=1e-4, eps_default=1e-2).curvature_eps == 1e-2
    assert asked == [1e-2]


# The radius


@pytest.mark.parametrize("expected", EPS_GRID)
def test_the_smallest_radius_that_stands_out_of_the_noise_is_taken(expected):
    problem, _ = quadratic([1.0] * SIZE)
    square = statistics.fmean(g * g for g in probe(problem.points(), 1e-2, 0.0).slopes)
    # FD-SNR grows with the square of the radius: 30 dB at the expected one, 10 dB at the one below it.
    sigma2 = square / 1000 * 2 * expected**2
    found = chosen(at(problem, sigma2), lr=1.0, eps=None)
    assert found.eps == expected
    assert list(found.fd_snr_db) == [f"{eps:g}" for eps in EPS_GRID if eps <= expected]
    assert found.notes == ()


def test_bias_is_the_share_of_a_slope_that_is_of_third_order():
    problem = Problem(lambda theta: theta.sum() + 50 * (theta**3).sum())
    small, large = (probe(problem.points(), eps, 0.0) for eps in (1e-2, 1e-1))
    exact = []
    for u, slope in zip(problem.directions(), large.slopes, strict=True):
        first_order = float(((1 + 150 * problem.theta**2) * u).sum())
        exact.append((slope - first_order) / slope)
    size = statistics.fmean(g * g for g in large.slopes)
    shares = statistics.fmean((e * g) ** 2 for e, g in zip(exact, large.slopes, strict=True))
    assert bias(small, large) == pytest.approx(math.sqrt(shares / size), rel=1e-3)


def test_no_radius_that_is_both_is_said():
    """Noise hides the small radii, and at the large ones the slope is mostly of third order."""
    problem = Problem(lambda theta: theta.sum() + 2000 * (theta**3).sum() / 3 - 2000 * (theta**2).sum() / 3)
    problem.theta = torch.full((SIZE,), 0.001, dtype=torch.float64)
    found = chosen(at(problem, sigma2=1e-4), lr=1.0, eps=None)
    assert found.eps == 1e-3
    (note,) = found.notes
    assert note.startswith("no eps reaches 20 dB of FD-SNR with less than a tenth of bias")
