"""ZO-SGD with momentum: MeZO's estimate of the gradient in SGD with heavy-ball momentum.

    v <- mu v + slope * z,   theta <- theta - lr * v
    slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps),   z ~ N(0, I)

symbol   argument      unit
mu       momentum      share of v that stays in a step; 0 is MeZO
epsilon  eps           parameter units
eta      lr            parameter units per unit slope; a steady gradient moves by lr / (1 - mu) of it

Per step: 2 queries. Memory: v, as large as the parameters and float32 at least; a copy of the parameters, and z.
Differs from the reference code: v has a precision of its own; parameters are restored exactly; the reported loss is
(l+ + l-)/2. theta moves by slope * z and by mu v one after the other, so that mu = 0 is MeZO bit for bit.
Source: ZO-SGD of Ghadimi and Lan 2013, arXiv:1309.5549, with the momentum of Zhang et al. 2024, arXiv:2402.11592.
"""

import torch

from zo_runner.methods.base import Params, StepReport, require
from zo_runner.methods.directions import Direction, DirectionPart, move
from zo_runner.methods.mezo import MeZO


class ZOSGDMomentum(MeZO):
    """ZO-SGD with momentum over the given parameters. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        momentum: mu; >= 0 and < 1.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0, momentum: float = 0.9) -> None:
        require("momentum", momentum, at_least=0.0, below=1.0)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.momentum = momentum

    def _update(self, u: Direction, report: StepReport) -> None:
        (slope,) = report.slopes
        for part in u:
            move([part], slope)
            v = self.state[part.view].setdefault("momentum", torch.zeros_like(part.component))
            move([DirectionPart(part.view, v, part.group)], self.momentum)
            v.mul_(self.momentum).add_(part.component, alpha=slope)
