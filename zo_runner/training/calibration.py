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
the mean over u and u flipped in A, (-z_a, z_b), five queries in all. Nor does h at B = 0 know of the curvature to come,
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zo_runner.methods.base import Method
from zo_runner.training.calibration_queries import Probe, ProbeCache

# The radii that eps=auto tries, smallest first.
EPS_GRID = (1e-4, 1e-3, 1e-2, 1e-1)

# The bias of a slope that eps=auto allows, as a share of the slope.
LARGEST_BIAS = 0.1


@dataclass(frozen=True)
class Calibration:
    """Chosen rate and radius, with the measurements they follow from. Enters result.json.

    Attributes:
        lr: learning rate of the run.
        eps: perturbation radius of the run.
        lr_max: the largest rate at which A does not walk too far; infinite where nothing limits it.
        curvature: mean |h|, NaN where it was not needed or drowned in noise.
        curvature_eps: the radius at which it was read.
        negative: share of directions with negative curvature.
        curvatures: h of every direction at that radius; none where it was not needed or drowned in noise.
        fd_snr_db: by radius, for each radius that was probed.
        bias: by radius, see `bias`; NaN for the first radius, which has nothing to be compared with.
        notes: remarks for the user, such as a fall-back.
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


def longest_update(method: Method, walk: float | None, steps: float | None) -> float:
    """Largest update of one number of A, as a root mean square, in parameter units.

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


@dataclass(frozen=True)
class ChosenRate:
    """A learning rate and the probe it was read from.

    Attributes:
        lr: learning rate.
        lr_max: the largest that the walk of A allows.
        probe: whose curvature it follows; None where it was given or nothing could be read.
    """

    lr: float
    lr_max: float = math.inf
    probe: Probe | None = None


def choose_eps(cache: ProbeCache, target_db: float) -> float | None:
    """The smallest radius of the grid whose FD-SNR is high enough and whose slopes are first order but for a tenth.

    First order is judged against the next smaller radius; the smallest one is taken as first order.

    Args:
        cache: probes.
        target_db: FD-SNR to reach.

    Returns:
        None where no radius is both.
    """

    def good(radius: float) -> bool:
        probed = cache.at(radius)
        return probed is not None and probed.fd_snr_db >= target_db and not cache.biases[radius] > LARGEST_BIAS

    return next(filter(good, EPS_GRID), None)


def choose_lr(
    cache: ProbeCache, smallest: float, *, lr_scale: float, normalized: bool, longest: float
) -> ChosenRate | None:
    """lr_scale / mean |h|, times the root mean square slope where the update divides the size of slopes out.

    The noise of h falls with the fourth power of the radius, so h is read at the first radius of the grid, from
    `smallest` on, at which it stands out of the noise.

    Args:
        cache: probes.
        smallest: radius to begin with. Steps are not smaller than the method's documented radius, and at the kinks of
            ReLU h grows without bound as the radius shrinks.
        lr_scale: c.
        normalized: True if the update divides the size of the slopes out, so that lr is a length.
        longest: times lr_scale, the most that the rate may move A at the usual slope; see `longest_update`.

    Returns:
        None where the curvature drowns in noise at every radius.
    """
    radii = (smallest, *(radius for radius in EPS_GRID if radius > smallest))
    read = next((p for radius in radii if (p := cache.at(radius)) and p.curvature_is_measured), None)
    if read is None:
        return None
    slope, lr_max = math.sqrt(read.mean_square), math.inf
    lr = lr_scale / read.curvature * (slope if normalized else 1.0)
    if slope > 0:
        lr_max = lr_scale * longest / (1.0 if normalized else slope)
    return ChosenRate(min(lr, lr_max), lr_max, read)


def calibration_of(cache: ProbeCache, eps: float, rate: ChosenRate, notes: Sequence[str]) -> Calibration:
    """The record of what was chosen and of all that was probed."""
    read = rate.probe
    return Calibration(
        lr=rate.lr,
        eps=eps,
        lr_max=rate.lr_max,
        curvature=math.nan if read is None else read.curvature,
        curvature_eps=math.nan if read is None else read.eps,
        negative=math.nan if read is None else statistics.fmean(h < 0 for h in read.curvatures),
        curvatures=() if read is None else read.curvatures,
        fd_snr_db={f"{radius:g}": probed.fd_snr_db for radius, probed in sorted(cache.probes.items())},
        bias={f"{radius:g}": share for radius, share in sorted(cache.biases.items())},
        notes=tuple(notes),
    )


def calibrate(
    cache: ProbeCache,
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
    """Choose eps, then lr, as far as they are not given; the method's documented ones where nothing can be measured.

    Args:
        cache: probes.
        lr: the rate, None to choose it.
        lr_scale: as in `choose_lr`.
        lr_default: the method's documented rate.
        eps: the radius, None to choose it.
        eps_default: the method's documented radius.
        target_db: as in `choose_eps`.
        normalized: as in `choose_lr`.
        longest: as in `choose_lr`.
    """
    notes = []
    if eps is None and (eps := choose_eps(cache, target_db)) is None:
        eps = eps_default
        notes.append(
            f"no eps reaches {target_db:g} dB of FD-SNR with less than a tenth of bias: eps={eps:g} is the method's "
            "documented one"
        )
    if lr is not None:
        return calibration_of(cache, eps, ChosenRate(lr), notes)
    smallest = max(eps, eps_default)
    rate = choose_lr(cache, smallest, lr_scale=lr_scale, normalized=normalized, longest=longest)
    if rate is None:
        notes.append(f"the curvature drowns in evaluation noise: lr={lr_default:g} is the method's documented one")
    return calibration_of(cache, eps, rate or ChosenRate(lr_default), notes)
