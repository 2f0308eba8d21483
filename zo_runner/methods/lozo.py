"""LOZO: MeZO along a low-rank direction in every matrix, whose right factor stays for some steps.

    W <- W - lr * slope * u,   slope = (l(W + eps u) - l(W - eps u)) / (2 eps),   u = U V' / sqrt(r)
    U ~ N(0, I), m x r, every step;   V ~ N(0, I), n x r, every `interval` steps;   tensors that are no matrices: u = z

symbol   argument      unit
r        rank          columns of U and V; none
nu       interval      steps between two draws of V
epsilon  eps           parameter units; sqrt(r) times the paper's
alpha    lr            parameter units per unit slope, as in the paper

The paper perturbs by epsilon U V' and steps along c U V' / r. With eps = sqrt(r) epsilon these are the same numbers: u
has the norm and, over draws of both factors, the mean and covariance of MeZO's z, so that eps and lr mean the same.

Per step: 2 queries. Memory: a copy of the parameters, and u; V is drawn again from its seed.
Differs from the reference code: the updated U is the perturbed one on every step, also where V is drawn anew, while the
code draws V and U from one stream before the queries and only U after; lr is the paper's alpha, not alpha / r;
parameters are restored exactly; the reported loss is (l+ + l-)/2.
Source: Chen et al. 2024, arXiv:2410.07698, Algorithm 1.
"""

import math

import torch

from zo_runner.methods.base import Key, Params, require_count
from zo_runner.methods.directions import Direction
from zo_runner.methods.zeroth_order import Factors, ZerothOrder


class LOZO(ZerothOrder):
    """LOZO over the given parameters. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        rank: columns of the factors; >= 1.
        interval: steps for which V stays; >= 1.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, params: Params, *, lr: float, eps: float, seed: int = 0, rank: int = 2, interval: int = 50
    ) -> None:
        require_count("rank", rank)
        require_count("interval", interval)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.rank, self.interval = rank, interval

    def left(self, param: torch.Tensor, step: int, *key: str) -> torch.Tensor:
        """Left factor U of a step for a matrix, or z for any other tensor."""
        if param.dim() != 2:
            return self.normal(param, tuple(param.shape), step, *key)
        return self.normal(param, (param.shape[0], self.rank), step, *key, "U")

    def right(self, param: torch.Tensor, step: int, *key: str) -> torch.Tensor:
        """Right factor V of the subspace that a step lies in."""
        return self.normal(param, (param.shape[1], self.rank), step // self.interval, *key, "V")

    def direction(self, step: int) -> Direction:
        """The direction U V' / sqrt(r) in every matrix, z in every other tensor."""

        def factors(key: Key, param: torch.Tensor) -> Factors:
            left = self.left(param, step, *key)
            return (left, self.right(param, step, *key) / math.sqrt(self.rank)) if param.dim() == 2 else (None, left)

        return self.over_factors(factors)
