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

# Readings of late, and how many of the largest are cut down to the next.
WINDOW, CUT = 16, 2


class CurvatureSchedule:
    """The rate of the coming step.

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
        """Whether the curvature is read at this step."""
        return step % self.every == 0

    def read(self, center_loss: float, mean: float) -> None:
        """Take in one reading.

        Args:
            center_loss: the loss at theta.
            mean: (l+ + l-) / 2 of the same batch, over both directions where it was read along two.
        """
        self._late.append(abs(2 * (mean - center_loss) / self.eps**2))

    def state(self) -> list[float]:
        """What `load` takes: |h| of late."""
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
