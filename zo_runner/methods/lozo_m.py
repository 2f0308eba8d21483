"""LOZO-M: LOZO with a momentum that lies in the subspace, one m x r factor per matrix.

    N <- beta N + (1 - beta) c U,   W <- W - lr * N V' / r,   c = slope along U V'
    where V was drawn anew, first   N <- N V_old' V_new / n,  the old momentum seen from the new subspace
    tensors that are no matrices:   m <- beta m + (1 - beta) slope z,   x <- x - lr * m

symbol   argument      unit
r        rank          columns of U, V and N; none
nu       interval      steps between two draws of V
beta     beta          share of the momentum that stays in a step; 0 is LOZO
epsilon  eps           parameter units; sqrt(r) times the paper's, as in `lozo`
alpha    lr            parameter units per unit slope, as in the paper

Kept is N / sqrt(r), since the slope is measured along u = U V' / sqrt(r).

Per step: 2 queries. Memory: as LOZO, and m x r numbers per matrix; V_old is drawn again from its seed.
Differs from the reference code: as `lozo`, and at a new V the factor beta is applied to the projected momentum on that
step as on any other.
Source: Chen et al. 2024, arXiv:2410.07698, Algorithm 2.
"""

import math

import torch

from zo_runner.methods.base import Params, StepReport, require
from zo_runner.methods.directions import Direction, DirectionPart, move
from zo_runner.methods.lozo import LOZO


class LOZOM(LOZO):
    """LOZO with momentum. See the module's docstring.

    Args:
        params: as in `ZerothOrder`.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        rank: as in `LOZO`.
        interval: as in `LOZO`.
        beta: >= 0 and < 1.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float,
        eps: float,
        seed: int = 0,
        rank: int = 2,
        interval: int = 50,
        beta: float = 0.9,
    ) -> None:
        require("beta", beta, at_least=0.0, below=1.0)
        super().__init__(params, lr=lr, eps=eps, seed=seed, rank=rank, interval=interval)
        self.beta = beta

    def _update(self, u: Direction, report: StepReport) -> None:
        for key, param, group in self.tensors():
            left = self.left(param, report.step, *key)
            momentum = self.state[param].setdefault("momentum", torch.zeros_like(left))
            if param.dim() == 2 and report.step > 0 and report.step % self.interval == 0:
                old, new = self.right(param, report.step - 1, *key), self.right(param, report.step, *key)
                momentum.copy_(momentum @ (old.T @ new) / param.shape[1])
            momentum.mul_(self.beta).add_(left, alpha=(1 - self.beta) * report.slopes[0])
            along = momentum
            if param.dim() == 2:
                along = momentum @ self.right(param, report.step, *key).T / math.sqrt(self.rank)
            move([DirectionPart(param, along, group)], 1.0)
