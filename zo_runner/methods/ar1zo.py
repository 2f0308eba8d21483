"""AR1-ZO, and the LoRA methods it is compared with: two-sided SPSA over one rank-1 atom, or over all of them.

    a_k <- a_k - lr * slope * z_a,   b_k <- b_k - lr * slope * z_b      (in every adapted module)
    slope = (l(theta + eps u) - l(theta - eps u)) / (2 eps),   u = (z_a, z_b) on atom k and 0 elsewhere,   z ~ N(0, I)

symbol   argument      unit
k        order         atom that a step queries: cyclic 0..r-1 (default), shuffled passes, or random
         offsets       the same k in every module (shared), or k + module index mod r (per_module)
         atoms         one: the method above; all: u covers all r atoms (full-rank LoRA-ZO)
eps      eps           parameter units
eta      lr            parameter units per unit slope

Per step: 2 queries; with atoms=one, d_out + d_in perturbed numbers per module, whatever the stored rank.
Memory: a copy of what is perturbed, and u.

The scaling s of dW = s B A is the adapter's, not the optimiser's, and it decides which method it is:
    ar1zo       one atom, s = alpha       (PEFT's `lora_alpha` = alpha r, see `atoms.lora_alpha`)
    naive_atom  one atom, s = alpha / r
    lora_zo     all atoms, s = alpha / r

Source: AR1-ZO, arXiv:2605.19767 (abstract; the full text was not available to us). Our readings: gamma is the numerator
of gamma/r, since a literal multiplier alpha*r would make the signal grow with r; one atom index serves all modules of a
query.
"""

from zo_runner.devices import moved
from zo_runner.methods.atoms import OFFSETS, ORDERS, Offsets, Order, atom, atom_at, factors
from zo_runner.methods.base import Params
from zo_runner.methods.directions import Direction, LazyDirection, LowRankPart, Slot
from zo_runner.methods.random import normal
from zo_runner.methods.zeroth_order import ZerothOrder


class AR1ZO(ZerothOrder):
    """Atomwise (or full-rank) LoRA-ZO over the groups of `lora.lora_groups`. See the module's docstring.

    Args:
        params: one group per adapted module: {"params": [A (rank x in), B (out x rank)], "name": str}.
        lr: as in `ZerothOrder`.
        eps: as in `ZerothOrder`.
        seed: as in `ZerothOrder`.
        atoms: "one" or "all" atoms per query.
        order: "cyclic", "shuffled" or "random"; without effect with atoms="all".
        offsets: "shared" or "per_module"; without effect with atoms="all".

    Raises:
        ValueError: an argument out of range, groups that are not LoRA pairs, or groups of unequal rank.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float,
        eps: float,
        seed: int = 0,
        atoms: str = "one",
        order: Order = "cyclic",
        offsets: Offsets = "shared",
    ) -> None:
        for name, value, allowed in (
            ("atoms", atoms, ("one", "all")),
            ("order", order, ORDERS),
            ("offsets", offsets, OFFSETS),
        ):
            if value not in allowed:
                raise ValueError(f"Invalid {name}: {value!r}. Must be one of {', '.join(allowed)}.")
        super().__init__(params, lr=lr, eps=eps, seed=seed)
        self.atoms, self.order, self.offsets = atoms, order, offsets
        ranks = {factors(group)[0].shape[0] for group in self.param_groups}
        if len(ranks) != 1:
            raise ValueError(f"Invalid parameter groups: ranks {sorted(ranks)}. Must be one rank in all modules.")
        self.rank: int = ranks.pop()

    @property
    def num_atoms(self) -> int | None:
        """The rank, or None with atoms="all"."""
        return self.rank if self.atoms == "one" else None

    def atom(self, step: int) -> int | None:
        """The atom that `step` queries in the first module, or None with atoms="all"."""
        return atom_at(self.order, step, self.rank, self.seed) if self.atoms == "one" else None

    def direction(self, step: int) -> Direction:
        """Standard normal numbers on the queried atoms, drawn on the CPU so that every device sees the same ones."""
        k = self.atom(step)
        slots, low_rank = [], []
        for i, group in enumerate(self.param_groups):
            name = group.get("name", str(i))
            a_RI, b_OR = factors(group)
            at = None if k is None else (k + i * (self.offsets == "per_module")) % self.rank
            views = (a_RI, b_OR) if at is None else atom(a_RI, b_OR, at)
            z_a, z_b = (
                moved(normal(view.shape, self.seed, "direction", step, name, side), view.device)
                for side, view in zip("AB", views, strict=True)
            )
            slots += [Slot(a_RI, views[0], z_a.detach, group), Slot(b_OR, views[1], z_b.detach, group)]
            if at is not None:
                low_rank += [LowRankPart(a_RI, at, z_a[:, None]), LowRankPart(b_OR, z_b[:, None], at)]
        return LazyDirection(slots, low_rank=low_rank, whole=k is None)
