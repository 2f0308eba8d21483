"""ZO-Adam: MeZO's estimate of the gradient in Adam.

    m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,   g = slope * z, of every coordinate
    theta <- theta - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + delta),   t = 1, 2, ...
    slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps),   z ~ N(0, I)

symbol   argument      unit
beta1    beta1         share of m that stays in a step
beta2    beta2         share of v that stays in a step
delta    floor         slope units; Adam's epsilon
epsilon  eps           parameter units, the radius of the queries
eta      lr            parameter units: the step does not depend on the size of the slopes

Per step: 2 queries. Memory: m and v, each as large as the parameters and float32 at least; a copy of the parameters,
and z.
Differs from the reference code: the moments have a precision of their own; parameters are restored exactly; the
reported loss is (l+ + l-)/2.
Source: Kingma and Ba 2014, arXiv:1412.6980, on the estimate of MeZO, as in Zhang et al. 2024, arXiv:2402.11592.
"""

from typing import ClassVar

import torch

from zo_runner.methods.base import Normalizes, Params, StepReport, require
from zo_runner.methods.directions import Direction, DirectionPart, move
from zo_runner.methods.mezo import MeZO


class ZOAdam(MeZO):
    """Adam on MeZO's estimate. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: length of a first step per coordinate, in parameter units; finite, >= 0.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        beta1: >= 0 and < 1.
        beta2: >= 0 and < 1.
        floor: delta; > 0.

    Raises:
        ValueError: an argument out of range.
    """

    normalizes: ClassVar[Normalizes] = "coordinates"

    def __init__(
        self,
        params: Params,
        *,
        lr: float,
        eps: float,
        seed: int = 0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        floor: float = 1e-8,
    ) -> None:
        require("beta1", beta1, at_least=0.0, below=1.0)
        require("beta2", beta2, at_least=0.0, below=1.0)
        require("floor", floor, above=0.0)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.beta1, self.beta2, self.floor = beta1, beta2, floor

    def _update(self, u: Direction, report: StepReport) -> None:
        t, (slope,) = report.step + 1, report.slopes
        for part in u:
            state = self.state[part.view]
            m, v = (state.setdefault(name, torch.zeros_like(part.component)) for name in ("first", "second"))
            g = slope * part.component
            m.mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            root = (v / (1 - self.beta2**t)).sqrt_().add_(self.floor)
            move([DirectionPart(part.view, m / root, part.group)], 1 / (1 - self.beta1**t))
