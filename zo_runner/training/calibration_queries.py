"""Queries of a calibration: slopes and curvatures along directions of its own, at the parameters as they are.

Symbols as in `calibration`.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from zo_runner.errors import Diverged
from zo_runner.methods.base import Method
from zo_runner.methods.directions import Direction
from zo_runner.methods.queries import Closure, losses_along
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.snr import decibel, fd_snr, loss_noise_variance, slope_noise_variance
from zo_runner.training.budget import Ledger
from zo_runner.training.noise import Noise
from zo_runner.training.objective import objective, re_evaluations
from zo_runner.training.sampler import BatchOrder

# Batches whose noise is measured, and how often, where the run does not say: a variance of few values is rough.
NOISE_BATCHES, NOISE_REPEATS = 4, 8

# A curvature is believed where its mean square is at least this many times what evaluation noise alone gives.
CURVATURE_OVER_NOISE = 4.0

ProbeQuery = tuple[Direction, Direction | None, Closure]


@dataclass(frozen=True)
class Probe:
    """Slopes and curvatures of K directions at one radius.

    Attributes:
        eps: the radius.
        slopes: g of each direction, those flipped in A among them.
        curvatures: h of each direction.
        sigma2: variance of the loss noise.
    """

    eps: float
    slopes: tuple[float, ...]
    curvatures: tuple[float, ...]
    sigma2: float

    @property
    def fd_snr_db(self) -> float:
        """FD-SNR of the slopes, in dB."""
        return decibel(fd_snr(self.mean_square, slope_noise_variance(self.sigma2, self.eps)))

    @property
    def mean_square(self) -> float:
        """Mean g^2, in squared loss units per squared unit of the direction."""
        return statistics.fmean(slope * slope for slope in self.slopes)

    @property
    def curvature(self) -> float:
        """mean |h|, in loss units per squared unit of the direction."""
        return statistics.fmean(map(abs, self.curvatures))

    @property
    def curvature_noise(self) -> float:
        """Variance that evaluation noise alone gives to h: (1 + 4 + 1) sigma^2 / eps^4, or 5 from two directions."""
        directions = len(self.slopes) / len(self.curvatures)
        return (4 + 2 / directions) * self.sigma2 / self.eps**4

    @property
    def curvature_is_measured(self) -> bool:
        """True if h stands out of the noise."""
        mean_square = statistics.fmean(h * h for h in self.curvatures)
        return mean_square > 0 and mean_square >= CURVATURE_OVER_NOISE * self.curvature_noise


def probe(points: Iterable[ProbeQuery], eps: float, sigma2: float) -> Probe:
    """Three queries along each direction u, and two more along its flip.

    Args:
        points: u, the same flipped in A or None, and the loss.
        eps: the radius.
        sigma2: variance of the loss noise.

    Raises:
        Diverged: a loss is not finite.
    """
    slopes, curvatures = [], []
    for direction, flipped, closure in points:
        plus, center, minus = losses_along(closure, direction, (eps, 0.0, -eps))
        ends = [(plus, minus)]
        if flipped is not None:
            plus, minus = losses_along(closure, flipped, (eps, -eps))
            ends.append((plus, minus))
        slopes += [(plus - minus) / (2 * eps) for plus, minus in ends]
        curvatures.append(statistics.fmean(plus - 2 * center + minus for plus, minus in ends) / eps**2)
    return Probe(eps, tuple(slopes), tuple(curvatures), sigma2)


def bias(smaller: Probe, larger: Probe) -> float:
    """Share of the slopes at the larger radius that is not first order, of their root mean square.

    The error of a slope is m3 eps^2 / 6 with the third derivative m3, so the difference of two slopes of one direction
    on one batch is the error at the larger radius less that at the smaller, (eps_s / eps_l)^2 of it. Noise of both
    slopes is taken off the mean square.
    """
    shrink = 1 - (smaller.eps / larger.eps) ** 2
    noise = slope_noise_variance(larger.sigma2, larger.eps) + slope_noise_variance(smaller.sigma2, smaller.eps)
    pairs = zip(larger.slopes, smaller.slopes, strict=True)
    error = max(statistics.fmean((one - other) ** 2 for one, other in pairs) - noise, 0.0)
    size = statistics.fmean(slope * slope for slope in larger.slopes)
    return math.sqrt(error / size) / shrink if size > 0 else math.nan


@dataclass
class CalibrationQueries:
    """Probes of the parameters as they are, on batches of their own.

    Args:
        method: whose directions are probed; it takes no step.
        evaluator: loss of examples.
        examples: training examples.
        order: indices of the examples of each direction.
        ledger: what may be spent.
        noise: added noise, and how evaluation noise is measured.
        probes: directions per radius.
        reserve: queries that must be left for training.
        reserve_tokens: non-padding tokens of these.
    """

    method: Method
    evaluator: Evaluator
    examples: Sequence[Encoded]
    order: BatchOrder
    ledger: Ledger
    noise: Noise
    probes: int
    reserve: int
    reserve_tokens: int

    @cached_property
    def sigma2(self) -> float:
        """Variance of the loss noise; it is needed also where the run itself measures none."""
        noise = self.noise if self.noise.repeats else replace(self.noise, repeats=NOISE_REPEATS)
        return statistics.fmean(
            loss_noise_variance(
                re_evaluations(self.evaluator, self.ledger, noise, self._batch(i), i, "calibration", "noise", i)
            )
            for i in range(NOISE_BATCHES)
        )

    @cached_property
    def tokens(self) -> int:
        """Non-padding tokens that one query on every batch reads."""
        with self.ledger.clock("calibration"):
            return sum(batch.tokens for i in range(self.probes) for batch in self.evaluator.batches(self._batch(i)))

    @torch.no_grad()
    def measure(self, eps: float) -> Probe | None:
        """The same directions and batches at every radius; None where the budget or the loss does not allow it."""
        each = self.method.queries_per_probe
        queries, tokens = each * self.probes, each * self.tokens
        if not self.ledger.affords(queries + self.reserve, tokens=tokens + self.reserve_tokens):
            return None
        sigma2 = self.sigma2
        with self.ledger.clock("calibration"):
            try:
                return probe(self._points(eps), eps, sigma2)
            except Diverged:
                return None

    def _batch(self, i: int) -> list[Encoded]:
        return [self.examples[j] for j in self.order[i]]

    def _points(self, eps: float) -> Iterator[ProbeQuery]:
        for i in range(self.probes):
            batches, path = self.evaluator.batches(self._batch(i)), ("calibration", f"{eps:g}", i)
            yield (
                self.method.direction(i),
                self.method.flipped_in_A(i) if self.method.has_halves else None,
                objective(self.evaluator, batches, self.ledger, self.noise, *path, purpose="calibration"),
            )


class ProbeCache:
    """Probes by radius, each measured once.

    Args:
        measure: probes one radius; None where that cannot be done (the budget, a loss that is not finite).

    Attributes:
        probes: by radius.
        biases: by radius, against the next smaller one that was probed; NaN for the first.
    """

    def __init__(self, measure: Callable[[float], Probe | None]) -> None:
        self._measure = measure
        self.probes: dict[float, Probe] = {}
        self.biases: dict[float, float] = {}

    def at(self, radius: float) -> Probe | None:
        """The probe at a radius; None where it cannot be measured."""
        if radius not in self.probes and (probed := self._measure(radius)) is not None:
            smaller = max((known for known in self.probes if known < radius), default=None)
            self.biases[radius] = math.nan if smaller is None else bias(self.probes[smaller], probed)
            self.probes[radius] = probed
        return self.probes.get(radius)
