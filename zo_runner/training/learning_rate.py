"""A learning rate that follows the curvature: lr = lr_scale / max(|h| at the start, |h| of late).

The curvature along LoRA's directions grows as B grows, several times over within a run, and with it falls the rate at
which a run is stable; a rate measured at the start alone is then too high later, or from the start too low. So every
few steps one more query is made, the loss at theta, which with the step's own two gives the curvature along its
direction,

    h = (l+ - 2 l0 + l-) / eps^2 = 2 ((l+ + l-) / 2 - l0) / eps^2

and of adapters two more, at both ends of (-z_a, z_b): (l+ + l-) / 2 is then the mean over all four ends
(`calibration` says why). It is charged to the budget as calibration. |h| at the start is the mean over the probes. |h|
of late is the mean over the latest readings, the two largest counting as the third largest: h has heavy tails, and one
outlier would halve the rate for the whole window. The window begins with the latest probes. The rate never rises above
lr_scale / |h| at the start, nor above what bounds the walk of A: where the curvature falls for a while it may come back
at once, and a rate that had followed it upwards is then too high.

symbol     argument      unit
c          lr_scale      none
h          curvatures    loss per squared unit of the direction
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from zo_runner.methods.base import Method
from zo_runner.methods.queries import Closure, finite, losses_along

# Readings of late, and how many of the largest are cut down to the next.
WINDOW, CUT = 16, 2


@dataclass(frozen=True)
class CurvatureReading:
    """Losses that give, with a step's own two, the curvature along its direction.

    Attributes:
        center_loss: at theta.
        flipped_mean: (l+ + l-) / 2 along the direction flipped in A; None without an adapter.
    """

    center_loss: float
    flipped_mean: float | None = None


def read_curvature(method: Method, closure: Closure) -> CurvatureReading:
    """Query what the curvature of the coming step takes beside its own queries: `queries_per_reading` of the method.

    Raises:
        Diverged: a loss is not finite.
    """
    if not method.has_halves:
        return CurvatureReading(finite(closure()))
    plus, center, minus = losses_along(closure, method.flipped_in_A(method.steps), (method.eps, 0.0, -method.eps))
    return CurvatureReading(center, (plus + minus) / 2)


class CurvatureSchedule:
    """Learning rate of the next step.

    Args:
        lr_scale: c.
        eps: radius at which curvatures are read, the method's own.
        every: steps between readings.
        curvatures: read before the first step, oldest first; not all 0.
        lr_max: the largest rate.
    """

    def __init__(
        self, *, lr_scale: float, eps: float, every: int, curvatures: Sequence[float], lr_max: float = math.inf
    ) -> None:
        self.lr_scale, self.eps, self.every, self.lr_max = lr_scale, eps, every, lr_max
        self._start = statistics.fmean(map(abs, curvatures))
        self._late = deque(map(abs, curvatures), maxlen=WINDOW)

    def due(self, step: int) -> bool:
        """True if the curvature is read at this step."""
        return step % self.every == 0

    def add(self, reading: CurvatureReading, mean: float) -> None:
        """Take in one reading.

        Args:
            reading: made before the step.
            mean: (l+ + l-) / 2 of the step's own queries.
        """
        ends = [mean] if reading.flipped_mean is None else [mean, reading.flipped_mean]
        self._late.append(abs(2 * (statistics.fmean(ends) - reading.center_loss) / self.eps**2))

    def state(self) -> list[float]:
        """|h| of late, for `load`."""
        return list(self._late)

    def load(self, state: Sequence[float]) -> None:
        """Go on from where `state` was taken."""
        self._late.clear()
        self._late.extend(state)

    @property
    def lr(self) -> float:
        """In parameter units per unit slope."""
        ordered = sorted(self._late)
        cap = ordered[max(0, len(ordered) - 1 - CUT)]
        late = statistics.fmean(min(size, cap) for size in ordered)
        return min(self.lr_max, self.lr_scale / max(self._start, late))
