"""MeZO: two-sided SPSA along one Gaussian direction over every trainable parameter.

    theta <- theta - lr * slope * z,   slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps),   z ~ N(0, I)

symbol   argument      unit
eps      eps           parameter units
eta      lr            parameter units per unit slope

Per step: 2 queries. Memory: one copy of the parameters, from which they are restored bit for bit. z is drawn on the
parameters' own device; up to KEPT_NUMBERS it is kept for the step, beyond that drawn again from its seed at each pass.
Differs from the reference code: parameters are
restored from a copy, not by adding and subtracting; the reported loss is (l+ + l-)/2, not l+; a loss that is not
finite stops the run; no weight decay (the paper's OPT runs use none).
Source: Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.
"""

import torch

from zo_runner.directions import Direction
from zo_runner.methods.base import Key, ZerothOrder


class MeZO(ZerothOrder):
    """MeZO over the given parameters. See the module's docstring for the update; arguments as in `ZerothOrder`."""

    def direction(self, step: int) -> Direction:
        """z over every parameter."""

        def z(key: Key, param: torch.Tensor) -> torch.Tensor:
            return self.normal(param, tuple(param.shape), step, *key)

        return self.over_tensors(z)
