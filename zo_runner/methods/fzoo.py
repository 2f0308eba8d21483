"""FZOO: N one-sided queries along random signs, and a step divided by the standard deviation of their losses.

    theta <- theta - lr * sum_i (l_i - l0) / (N sigma) u_i,   l_i = l(theta + eps u_i),   l0 = l(theta)
    sigma^2 = sum_i (l_i - mean l)^2 / (N - 1),   u_i: independent, +1 or -1 with equal probability, i = 1..N

symbol   argument      unit
N        num_signs     directions, each with a query of its own; none
epsilon  eps           parameter units
eta      lr            parameter units: the step does not depend on the size of the slopes

Where sigma is 0 the losses say nothing, and the step is 0.

Per step: N + 1 queries. Memory: a copy of the parameters, and N directions where they have up to KEPT_NUMBERS numbers
in all, else one at a time, drawn again for the update.
Differs from the reference code: over whole models the directions are evaluated one after the other, not in one batched
pass, which changes seconds and not numbers; parameters are restored exactly; the reported loss is l0.
Source: Dang et al. 2025, arXiv:2506.09034 (abstract, and the authors' code; the full text was not available to us). Our
readings, which the code bears out: the step has no 1/epsilon, which sigma, proportional to epsilon, would cancel; sigma
is over the N perturbed losses, without l0. That sigma^2 divides by N - 1 is ours.
"""

import itertools
import statistics
from typing import ClassVar

import torch

from zo_runner.methods.base import Key, Normalizes, Params, StepReport, require_count
from zo_runner.methods.directions import KEPT_NUMBERS, Direction, move
from zo_runner.methods.queries import Closure, finite, losses_along, losses_at
from zo_runner.methods.zeroth_order import ZerothOrder


class FZOO(ZerothOrder):
    """FZOO over the given parameters. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: length of the step per coordinate, in parameter units; finite, >= 0.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        num_signs: N; >= 2.

    Raises:
        ValueError: an argument out of range.
    """

    two_sided: ClassVar[bool] = False
    normalizes: ClassVar[Normalizes] = "slope"

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0, num_signs: int = 8) -> None:
        require_count("num_signs", num_signs, at_least=2)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.num_signs = num_signs
        self.queries_per_step = num_signs + 1
        self._size = sum(param.numel() for _, param, _ in self.tensors())
        self._drawn: list[Direction] = []  # of the step under way

    def direction(self, step: int, i: int = 0) -> Direction:
        """Direction u_i, one of the `num_signs` directions of a step."""

        def component(key: Key, param: torch.Tensor) -> torch.Tensor:
            z = self.normal(param, tuple(param.shape), step, i, *key)
            return torch.where(z < 0, -1.0, 1.0).to(z.dtype)

        return self.over_tensors(component)

    def _query(self, closure: Closure, u: Direction) -> StepReport:
        middle = finite(closure())
        others = (self.direction(self.steps, i) for i in range(1, self.num_signs))
        if self.num_signs * self._size <= KEPT_NUMBERS:
            self._drawn = [u, *others]
            losses = [loss for (loss,) in losses_at(closure, self._drawn, (self.eps,))]
        else:
            self._drawn = [u]
            losses = [losses_along(closure, v, (self.eps,))[0] for v in itertools.chain([u], others)]
        slopes = tuple((loss - middle) / self.eps for loss in losses)
        return StepReport(self.steps, middle, slopes, self.param_groups[0]["lr"])

    def _update(self, u: Direction, report: StepReport) -> None:
        drawn = self._drawn if self._drawn and self._drawn[0] is u else [u]  # nothing is kept for a replay
        self._drawn = []
        sigma = statistics.stdev(report.slopes)  # of the losses, divided by eps as the slopes are
        if sigma == 0:
            return
        for i, slope in enumerate(report.slopes):
            u = drawn[i] if i < len(drawn) else self.direction(report.step, i)
            move(u, slope / (self.num_signs * sigma))
