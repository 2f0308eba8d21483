"""Signs of divergence where every loss is finite: an exploding slope, a constant loss, a parameter that is not finite.

It only stops a run. No number is ever replaced by another.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from zo_runner.errors import Diverged
from zo_runner.methods.base import Method, StepReport

# Slopes before the first is judged: of fewer, the mean square says little.
FEW_SLOPES = 100


@dataclass
class Guard:
    """Asked after every step, and of the parameters before they are scored or saved.

    A slope is compared with those of the whole run and not with the latest: once a task is solved these are near 0, and
    one hard batch would be a false alarm. A slope as large as any before it measures at most sqrt(n) root mean squares
    of n slopes, so that a threshold of 1000 takes none for a fault in the first million.

    Args:
        slope: root mean squares of all slopes so far that a slope may measure; None for any.
        still: steps on end that may not all have the same loss, such as 0; None for any.
    """

    slope: float | None = None
    still: int | None = None

    def __post_init__(self) -> None:
        self._slopes, self._squares = 0, 0.0
        self._loss: float | None = None
        self._repeats = 0

    def after(self, report: StepReport) -> None:
        """Judge a step.

        Raises:
            Diverged: a slope exploded, or the loss has not changed for too long.
        """
        self._repeats = self._repeats + 1 if report.loss == self._loss else 1
        self._loss = report.loss
        size, usual = max(map(abs, report.slopes), default=0.0), self._usual
        self._slopes += len(report.slopes)
        self._squares += sum(slope * slope for slope in report.slopes)
        if self.slope is not None and usual and size > self.slope * usual:
            raise Diverged(
                f"the slope {size:.4g} is more than guard.slope={self.slope:g} times {usual:.4g}, the root mean square "
                "of those before it,"
            )
        if self.still is not None and self._repeats >= self.still:
            raise Diverged(f"the loss was exactly {report.loss} in guard.still={self.still} steps on end,")

    @property
    def _usual(self) -> float:
        """The root mean square of the slopes so far; 0 where it is none to compare with."""
        return math.sqrt(self._squares / self._slopes) if self._slopes >= FEW_SLOPES else 0.0

    def parameters(self, method: Method) -> None:
        """Judge what is trained. One pass over it.

        Raises:
            Diverged: a number of a parameter is NaN or past the range of its dtype, which the loss need not show.
        """
        for key, param, _ in method.tensors():
            finite = int(torch.isfinite(param).sum())
            if finite < param.numel():
                raise Diverged(
                    f"{param.numel() - finite} of {param.numel()} numbers of the parameter {'.'.join(key)} are not "
                    f"finite in {str(param.dtype).removeprefix('torch.')}"
                )

    def state(self) -> dict[str, Any]:
        """State for `load`, ready for JSON."""
        return {"slopes": self._slopes, "squares": self._squares, "loss": self._loss, "repeats": self._repeats}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
        self._slopes, self._squares = state["slopes"], state["squares"]
        self._loss, self._repeats = state["loss"], state["repeats"]
