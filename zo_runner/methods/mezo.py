"""MeZO: two-sided SPSA along one Gaussian direction over every trainable parameter.

    theta <- theta - lr * slope * z,   slope = (l(theta + eps z) - l(theta - eps z)) / (2 eps),   z ~ N(0, I)

symbol   argument      unit
eps      eps           parameter units
eta      lr            parameter units per unit slope

Per step: 2 queries. Memory: one copy of the parameters, from which they are restored bit for bit; z is drawn again
from its seed each time it is needed, on the parameters' own device. Differs from the reference code: parameters are
restored from a copy, not by adding and subtracting; the reported loss is (l+ + l-)/2, not l+; a loss that is not
finite stops the run; no weight decay (the paper's OPT runs use none).
Source: Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.
"""

from collections.abc import Iterator

from zo_runner.directions import Direction, Part
from zo_runner.methods.base import ZerothOrder
from zo_runner.seeds import normal


class MeZO(ZerothOrder):
    """MeZO over the given parameters. See the module's docstring for the update; arguments as in `ZerothOrder`."""

    def direction(self, step: int) -> Direction:
        """z over every parameter, drawn again at each pass."""
        return _Dense(self, step)


class _Dense:
    """A Gaussian direction over all parameters that is never held in memory as a whole."""

    def __init__(self, method: MeZO, step: int) -> None:
        self.method = method
        self.step = step

    def __iter__(self) -> Iterator[Part]:
        for i, group in enumerate(self.method.param_groups):
            names = group.get("names") or [f"{i}.{j}" for j in range(len(group["params"]))]
            for name, param in zip(names, group["params"], strict=True):
                z = normal(param.shape, self.method.seed, "direction", self.step, name, device=param.device)
                yield Part(param, z, group)
