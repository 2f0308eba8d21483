"""SubZero: MeZO along an r x r Gaussian between two orthonormal bases of every matrix, which stay for some steps.

    W <- W - lr * slope * u,   slope = (l(W + eps u) - l(W - eps u)) / (2 eps),   u = sqrt(m n / r^2) U Z V'
    Z ~ N(0, I), r x r, every step;   U, m x r, and V, n x r: orthonormal columns, drawn every `interval` steps
    tensors that are no matrices: u = z ~ N(0, I)

symbol   argument      unit
r        rank          columns of U and V, at most the smaller side of the matrix; none
F        interval      steps between two draws of the subspaces
epsilon  eps           parameter units
eta      lr            parameter units per unit slope

sqrt(m n / r^2) gives u the mean square norm of MeZO's z, m n, so that MeZO's eps and lr keep their meaning. The factors
A and B of a LoRA module are long and narrow: each is read as the matrix nearest to a square that its numbers fill.

Per step: 2 queries. Memory: a copy of the parameters, u, and (m + n) r numbers per matrix for the bases, which are no
state: they are drawn again from their seed.
Differs from the reference code: the bases are uniformly distributed (QR with a positive diagonal of R); the update is
the perturbed direction itself, not an optimiser's step from a stored gradient; parameters are restored exactly; the
reported loss is (l+ + l-)/2.
Source: Yu et al. 2024, arXiv:2410.08989, Algorithms 1 to 3.
"""

import math

import torch

from zo_runner.methods.base import Key, Params, require_count
from zo_runner.methods.directions import Direction
from zo_runner.methods.zeroth_order import Factors, ZerothOrder

Bases = tuple[torch.Tensor, torch.Tensor]


class SubZero(ZerothOrder):
    """SubZero over the given parameters. See the module's docstring.

    Args:
        params: as in `ZerothOrder`; matrices of a group that has a `name`, a LoRA module's, are read as near squares.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        rank: columns of the bases; >= 1.
        interval: steps for which the bases stay; >= 1.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, params: Params, *, lr: float, eps: float, seed: int = 0, rank: int = 24, interval: int = 1000
    ) -> None:
        require_count("rank", rank)
        require_count("interval", interval)
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.rank, self.interval = rank, interval
        self._bases: dict[Key, tuple[tuple[int, int], Bases]] = {}
        self._shapes = {
            key: near_square(param.numel()) if "name" in group else (param.shape[0], param.shape[1])
            for key, param, group in self.tensors()
            if param.dim() == 2
        }

    def direction(self, step: int) -> Direction:
        """The direction sqrt(m n / r^2) U Z V' in every matrix, z in every other tensor."""

        def factors(key: Key, param: torch.Tensor) -> Factors:
            if key not in self._shapes:
                return None, self.normal(param, tuple(param.shape), step, *key)
            u_MR, v_NR = self.bases(key, param, step // self.interval)
            r = u_MR.shape[1]
            left_MR = math.sqrt(param.numel()) / r * (u_MR @ self.normal(param, (r, r), step, *key, "Z"))
            if self._shapes[key] == param.shape:
                return left_MR, v_NR
            return None, (left_MR @ v_NR.T).reshape(param.shape)

        return self.over_factors(factors)

    def bases(self, key: Key, param: torch.Tensor, subspace: int) -> Bases:
        """Bases U and V of a matrix in the subspace of that index; the latest ones are kept."""
        wanted = (self.seed, subspace)  # loading a state may change the seed
        kept, found = self._bases.get(key, (None, None))
        if found is None or kept != wanted:
            sizes = self._shapes[key]
            rank = min(self.rank, *sizes)
            left, right = (
                orthonormal(self.normal(param, (size, rank), subspace, *key, side))
                for size, side in zip(sizes, "UV", strict=True)
            )
            found = left, right
            self._bases[key] = wanted, found
        return found


def orthonormal(gaussian: torch.Tensor) -> torch.Tensor:
    """Uniformly distributed orthonormal columns from a Gaussian matrix."""
    q, r = torch.linalg.qr(gaussian)
    columns: torch.Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    return columns


def near_square(numel: int) -> tuple[int, int]:
    """The factors of `numel` that are nearest to each other, the smaller one first."""
    small = next(k for k in range(math.isqrt(numel), 0, -1) if numel % k == 0)
    return small, numel // small
