"""ZO-sign: signSGD on MeZO's estimate of the gradient.

    theta <- theta - lr * sign(slope * z), of every coordinate
    slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps),   z ~ N(0, I)

symbol   argument      unit
epsilon  eps           parameter units
eta      lr            parameter units: every coordinate moves by lr, whatever the slope

Per step: 2 queries. Memory: a copy of the parameters, and z.
Differs from the reference code: in ZO-LLM's `zo_sign_opt` it is the scalar slope whose sign is taken and multiplied by
z, and its runs hand the product to AdamW; here, as in the paper, the sign is that of every coordinate of the estimate,
and it is the step. Parameters are restored exactly; the reported loss is (l+ + l-)/2.
Source: Liu et al. 2019, signSGD via Zeroth-Order Oracle (ICLR), with two-sided queries along one direction.
"""

import math
from typing import ClassVar

from zo_runner.methods.base import Normalizes, Params, StepReport
from zo_runner.methods.directions import Direction, DirectionPart, move
from zo_runner.methods.mezo import MeZO


class ZOSign(MeZO):
    """signSGD on MeZO's estimate. See the module's docstring; arguments as in `ZerothOrder`, but lr is a length."""

    normalizes: ClassVar[Normalizes] = "coordinates"

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0) -> None:
        super().__init__(params, lr=lr, eps=eps, seed=seed)

    def _update(self, u: Direction, report: StepReport) -> None:
        (slope,) = report.slopes
        if slope != 0:
            move((DirectionPart(part.view, part.component.sign(), part.group) for part in u), math.copysign(1.0, slope))
