"""HiZOO: MeZO along a direction scaled by a running estimate of the Hessian's diagonal.

    theta <- theta - lr * slope * u,   slope = (l(theta + eps u) - l(theta - eps u)) / (2 eps),   u = z / sqrt(H)
    H <- (1 - a) H + a * |l+ + l- - 2 l0| / (2 eps^2) * H z^2,   H = 1 at first,   z ~ N(0, I)

symbol   argument      unit
a        smoothing     share of the newest estimate in H; 0 is MeZO
mu       eps           parameter units where H = 1
eta      lr            parameter units per unit slope where H = 1

Per step: 3 queries, l+, l- and l0. Memory: H, as large as the parameters and float32 at least; a copy of the
parameters, and u.
Differs from the reference code: 3 queries, not 4, since the loss is not asked for again after the step; H does change
by default, whereas the released script holds it constant; the update goes along the direction that was perturbed, with
the H of before the step, where the code divides z by the new one; no weight decay; parameters are restored exactly;
the reported loss is (l+ + l-)/2.
Source: Zhao et al. 2024, arXiv:2402.15173, Algorithm 1.
"""

import torch

from zo_runner.methods.base import Key, Params, StepReport, require
from zo_runner.methods.directions import Direction, move
from zo_runner.methods.queries import Closure, losses_along
from zo_runner.methods.zeroth_order import ZerothOrder


class HiZOO(ZerothOrder):
    """HiZOO over the given parameters. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        smoothing: a; >= 0 and < 1.

    Raises:
        ValueError: an argument out of range.
    """

    queries_per_step = 3

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0, smoothing: float = 1e-6) -> None:
        require("smoothing", smoothing, at_least=0.0, below=1.0)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.smoothing = smoothing

    def direction(self, step: int) -> Direction:
        """The direction z / sqrt(H) over every parameter, with the present H."""

        def component(key: Key, param: torch.Tensor) -> torch.Tensor:
            z = self.normal(param, tuple(param.shape), step, *key)
            return z / self.state[param]["hessian"].sqrt() if param in self.state else z

        return self.over_tensors(component)

    def _query(self, closure: Closure, u: Direction) -> StepReport:
        plus, minus, middle = losses_along(closure, u, (self.eps, -self.eps, 0.0))
        return self._two_sided_report(plus, minus, curvature=(plus + minus - 2 * middle) / self.eps**2)

    def _update(self, u: Direction, report: StepReport) -> None:
        half = abs(report.curvature or 0.0) / 2
        for part in u:
            move([part], report.slopes[0])
            h = self.state[part.view].setdefault("hessian", torch.ones_like(part.component))
            z_squared = part.component.square().mul_(h)
            h.mul_(z_squared.mul_(self.smoothing * half).add_(1 - self.smoothing))
