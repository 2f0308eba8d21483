"""MeZO: two-sided SPSA along one random direction over every trainable parameter.

    theta <- theta - lr * slope * z,   slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps)
    z ~ N(0, I), or with distribution=rademacher every coordinate +1 or -1 with probability 1/2

symbol   argument      unit
eps      eps           parameter units
eta      lr            parameter units per unit slope
-        distribution  of z: gaussian or rademacher; none

Both have unit covariance, so that slope * z estimates the same gradient. Signs take a fraction of the time to draw; all
directions have the length sqrt(d), where those of a Gaussian scatter around it.

Per step: 2 queries, and three passes over the parameters: one for each query and the update. Memory: one copy of the
parameters, which is perturbed in their place, so that they keep every bit. z is drawn on the parameters' own device; up
to KEPT_NUMBERS it is kept for the step, beyond that drawn again from its seed at each pass.
Differs from the reference code, which makes four passes: parameters are not restored by adding and subtracting; the
reported loss is (l+ + l-)/2, not l+; a loss that is not finite stops the run; no weight decay (the paper's OPT runs use
none).
Source: Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.
"""

from typing import Literal, get_args

import torch

from zo_runner.methods.base import Key, Params
from zo_runner.methods.directions import Direction
from zo_runner.methods.zeroth_order import ZerothOrder

Distribution = Literal["gaussian", "rademacher"]


class MeZO(ZerothOrder):
    """MeZO over the given parameters. See the module's docstring for the update.

    Args:
        params: as in `ZerothOrder`.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        distribution: of every coordinate of the direction: "gaussian" or "rademacher".

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, params: Params, *, lr: float, eps: float, seed: int = 0, distribution: Distribution = "gaussian"
    ) -> None:
        if distribution not in get_args(Distribution):
            allowed = " or ".join(get_args(Distribution))
            raise ValueError(f"Invalid distribution: {distribution!r}. Must be {allowed}.")
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.distribution = distribution

    def direction(self, step: int) -> Direction:
        """The direction z over every parameter."""
        draw = self.signs if self.distribution == "rademacher" else self.normal

        def z(key: Key, param: torch.Tensor) -> torch.Tensor:
            return draw(param, tuple(param.shape), step, *key)

        return self.over_tensors(z)
