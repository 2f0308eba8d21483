"""Learning rate and perturbation radius from a few queries at the start.

Along a direction u the loss is l(theta + t u) = l0 + g t + h t^2 / 2 + ..., so three queries give

    slope      g = (l+ - l-) / (2 eps)
    curvature  h = (l+ - 2 l0 + l-) / eps^2          an estimate of u'Hu

A step of size lr * g along -u changes the expected loss by -lr g^2 + lr^2 g^2 h / 2: the curvature sets the scale of
the rate, and lr = lr_scale / mean |h| over a few directions and batches. lr_scale has no unit, and one value serves
every method, scaling and rank. Where the update divides the size of the slopes out, lr is a length, and
lr = lr_scale * sqrt(mean g^2) / mean |h|: the same step at a slope of the usual size. |h| and not h: directions of
negative curvature say as much about the scale as the others, and their mean can be near 0.

Of adapters, u = (z_a, z_b) in the factors of dW = s B A, and h has a share that is no curvature of either: 2 s <G, z_b
z_a'> with G the gradient in W. Its mean is 0, and at B = 0 it may outweigh all else. It changes sign with z_a, so h is
the mean over u and u half turned, (-z_a, z_b), five queries in all. Nor does h at B = 0 know of the curvature to come,
which grows with the square of A as A walks at random; so the rate is also bounded by how far it lets A walk by the end
of the budget, see `longest_update`.

Every query is charged to the budget. Directions and batches are those of streams of their own, so that a calibrated run
repeats bit for bit, and a run with the same rate given as a number takes the same steps.

symbol     argument      unit
c          lr_scale      none
K          probes        directions, each on a batch of its own
           walk          initial sizes of A, at lr_scale = 1
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from zo_runner.methods.base import Method
from zo_runner.methods.directions import Direction
from zo_runner.methods.queries import Closure, losses_along
from zo_runner.snr import decibel, fd_snr, slope_noise_variance

# The radii that eps=auto tries, smallest first.
EPS_GRID = (1e-4, 1e-3, 1e-2, 1e-1)

# The bias of a slope that eps=auto allows, as a share of the slope.
LARGEST_BIAS = 0.1

# A curvature is believed where its mean square is at least this many times what evaluation noise alone gives.
CURVATURE_OVER_NOISE = 4.0

ProbeQuery = tuple[Direction, Direction | None, Closure]


@dataclass(frozen=True)
class Probe:
    """What K directions say at one radius.

    Attributes:
        eps: the radius.
        slopes: g of each direction, those that are half turned among them.
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
        """Whether h stands out of the noise."""
        mean_square = statistics.fmean(h * h for h in self.curvatures)
        return mean_square > 0 and mean_square >= CURVATURE_OVER_NOISE * self.curvature_noise


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and why. Enters result.json.

    Attributes:
        lr: learning rate of the run.
        eps: perturbation radius of the run.
        lr_max: the largest rate that does not lead A too far, infinite where nothing limits it.
        curvature: mean |h|, NaN where it was not needed or drowned in noise.
        curvature_eps: the radius at which it was read.
        negative: share of directions with negative curvature.
        curvatures: h of every direction at that radius; none where it was not needed or drowned in noise.
        fd_snr_db: by radius, for each radius that was probed.
        bias: by radius, see `bias`; NaN for the first radius, which has nothing to be compared with.
        notes: what a person should know, such as a fall-back.
    """

    lr: float
    eps: float
    lr_max: float
    curvature: float
    curvature_eps: float
    negative: float
    curvatures: tuple[float, ...]
    fd_snr_db: dict[str, float]
    bias: dict[str, float]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def probe(points: Iterable[ProbeQuery], eps: float, sigma2: float) -> Probe:
    """Three queries along each direction u, and two more where there is a half turned one.

    Args:
        points: u, the same with A's half turned or None, and the loss.
        eps: the radius.
        sigma2: variance of the loss noise.

    Raises:
        Diverged: a loss is not finite.
    """
    slopes, curvatures = [], []
    for direction, turned, closure in points:
        plus, middle, minus = losses_along(closure, direction, (eps, 0.0, -eps))
        ends = [(plus, minus)]
        if turned is not None:
            plus, minus = losses_along(closure, turned, (eps, -eps))
            ends.append((plus, minus))
        slopes += [(plus - minus) / (2 * eps) for plus, minus in ends]
        curvatures.append(statistics.fmean(plus - 2 * middle + minus for plus, minus in ends) / eps**2)
    return Probe(eps, tuple(slopes), tuple(curvatures), sigma2)


def bias(smaller: Probe, larger: Probe) -> float:
    """How much of the slopes at the larger radius is not first order, as a share of their root mean square.

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


def longest_update(method: Method, walk: float | None, steps: float | None) -> float:
    """How large an update of one number of A may be, as a root mean square, in parameter units.

    An update is lr * slope * z with z of mean 0, so n of them lead away by lr * rms(slope) * sqrt(n). This is to be no
    more than `walk` times the root mean square of A at the start: as A grows, so does the curvature along B, with its
    square, which nothing measured at the start can tell. The update is that of lr_scale = 1.

    Args:
        method: the optimiser, before its first step.
        walk: shares of A's size; None for any distance.
        steps: that the budget pays; None where nobody knows.

    Returns:
        Infinity where nothing limits it, as without an adapter.
    """
    if walk is None or steps is None or not method.has_halves:
        return math.inf
    factors = [group["params"][0] for group in method.param_groups]
    size = math.sqrt(sum(float(a.square().sum()) for a in factors) / sum(a.numel() for a in factors))
    return walk * size / math.sqrt(max(1.0, steps / (method.num_atoms or 1)))


def calibrate(
    measure: Callable[[float], Probe | None],
    *,
    lr: float | None,
    lr_scale: float,
    lr_default: float,
    eps: float | None,
    eps_default: float,
    target_db: float,
    normalized: bool = False,
    longest: float = math.inf,
) -> Calibration:
    """Choose what was not given.

    eps: the smallest radius of the grid whose FD-SNR reaches `target_db` and whose slopes are first order but for a
    tenth, seen against the next smaller radius (the smallest one is taken as first order). Where none is both:
    `eps_default`, with a note.

    lr: lr_scale / mean |h|, times the root mean square slope where `normalized`, both read at eps, but not below
    `eps_default`: steps are not smaller than that, and at the kinks
    of ReLU h grows without bound as the radius shrinks. Since the noise of h falls with the fourth power of the radius,
    it is read at the first larger radius of the grid at which h stands out of the noise. Where it nowhere does:
    `lr_default`, with a note. No more than lets an update at the usual slope be lr_scale * `longest`.

    Args:
        measure: probes one radius; None where that cannot be done (the budget, a loss that is not finite).
        lr: the rate, None to choose it.
        lr_scale: c.
        lr_default: the method's documented rate.
        eps: the radius, None to choose it.
        eps_default: the method's documented radius.
        target_db: FD-SNR that a radius must reach.
        normalized: whether the update divides the size of the slopes out, so that lr is a length.
        longest: times lr_scale, the lr_max that the rate may move A at the usual slope; see `longest_update`.
    """
    found: dict[float, Probe] = {}
    biases: dict[str, float] = {}
    notes: list[str] = []

    def at(radius: float) -> Probe | None:
        if radius not in found and (probed := measure(radius)) is not None:
            smaller = max((known for known in found if known < radius), default=None)
            biases[f"{radius:g}"] = math.nan if smaller is None else bias(found[smaller], probed)
            found[radius] = probed
        return found.get(radius)

    def good(radius: float) -> bool:
        probed = at(radius)
        return probed is not None and probed.fd_snr_db >= target_db and not biases[f"{radius:g}"] > LARGEST_BIAS

    radius = eps
    if radius is None:
        radius = next(filter(good, EPS_GRID), None)
        if radius is None:
            radius = eps_default
            notes.append(
                f"no eps reaches {target_db:g} dB of FD-SNR with less than a tenth of bias: eps={radius:g} is the "
                "method's documented one"
            )
    rate, read, lr_max = lr, None, math.inf
    if rate is None:
        start = max(radius, eps_default)
        larger = (start, *(r for r in EPS_GRID if r > start))
        read = next((p for r in larger if (p := at(r)) and p.curvature_is_measured), None)
        if read is not None:
            slope = math.sqrt(read.mean_square)
            rate = lr_scale / read.curvature * (slope if normalized else 1.0)
            if slope > 0:
                lr_max = lr_scale * longest / (1.0 if normalized else slope)
            rate = min(rate, lr_max)
        else:
            rate = lr_default
            notes.append(f"the curvature drowns in evaluation noise: lr={rate:g} is the method's documented one")
    return Calibration(
        lr=rate,
        eps=radius,
        lr_max=lr_max,
        curvature=math.nan if read is None else read.curvature,
        curvature_eps=math.nan if read is None else read.eps,
        negative=math.nan if read is None else statistics.fmean(h < 0 for h in read.curvatures),
        curvatures=() if read is None else read.curvatures,
        fd_snr_db={f"{r:g}": probed.fd_snr_db for r, probed in sorted(found.items())},
        bias=dict(sorted(biases.items(), key=lambda pair: float(pair[0]))),
        notes=tuple(notes),
    )
