"""Adapted weights that hold all atoms but the one that is queried, so that a step costs the same at every rank.

W + s sum_k b_k a_k'  =  (W + s sum_{j != k} b_j a_j')  +  s b_k a_k'

The bracket is kept, and a query sees it as the frozen weight beside an adapter of rank 1, which is atom k itself. From
one step to the next two atoms change sides, at the cost of two outer products. Their rounding adds up, so the bracket
is computed anew from W, A and B after as many steps as there are atoms; then it is also compared with what it had
become, since an adapter that was changed in between would otherwise go unnoticed.

Rounding: W + s B A is rounded once to float32, about as much as one product with it. A base of lower precision would
lose small atoms to its rounding and is not folded.
Memory: one more copy of the adapted weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from zo_runner.adapters import NAME
from zo_runner.directions import Thin

# The share of a model's matrices above which the adapter's arithmetic is worth a copy of the adapted weights.
WORTH_SHARE = 0.03

# What a bracket may differ from the exact one, as a share of its largest entry: rounding makes some 1e-6 of it.
LARGEST_DRIFT = 1e-3


@dataclass
class Folded:
    """One adapted module.

    Attributes:
        base: the frozen linear layer.
        pair: the linear layers of A and B.
        weight: W of the frozen layer.
        a_RI: A.
        b_OR: B.
        scaling: s.
        bracket: W + s sum_{j != atom} b_j a_j', None before it was computed.
        atom: the one that is left out of it.
        versions: of A and B when it was last in use.
    """

    base: nn.Linear
    pair: tuple[nn.Linear, nn.Linear]
    weight: nn.Parameter
    a_RI: nn.Parameter
    b_OR: nn.Parameter
    scaling: float
    bracket: nn.Parameter | None = None
    atom: int = -1
    versions: tuple[int, int] = (-1, -1)

    def present(self, atom: int) -> None:
        """Show the frozen layer with the bracket, and the adapter with the atom alone."""
        assert self.bracket is not None
        self.base.weight = self.bracket
        for layer, part in zip(self.pair, (self.a_RI[atom : atom + 1], self.b_OR[:, atom : atom + 1]), strict=True):
            layer.weight = nn.Parameter(part, requires_grad=False)

    def restore(self) -> None:
        """Give the layers their own parameters back."""
        self.base.weight = self.weight
        self.pair[0].weight, self.pair[1].weight = self.a_RI, self.b_OR
        self.versions = self.current_versions()

    def anew(self, atom: int) -> None:
        """Compute the bracket from W, A and B."""
        others_OR = self.b_OR.clone()
        others_OR[:, atom] = 0.0
        exact = torch.addmm(self.weight, others_OR, self.a_RI, alpha=self.scaling)
        if self.bracket is None:
            self.bracket = nn.Parameter(exact, requires_grad=False)
        else:
            self.bracket.copy_(exact)
        self.atom = atom

    def move(self, atom: int) -> None:
        """Let two atoms change sides."""
        assert self.bracket is not None
        if atom != self.atom:
            out_O2 = torch.stack((self.b_OR[:, self.atom], -self.b_OR[:, atom]), dim=1)
            in_2I = torch.stack((self.a_RI[self.atom], self.a_RI[atom]))
            self.bracket.addmm_(out_O2, in_2I, alpha=self.scaling)
            self.atom = atom

    @property
    def changed(self) -> bool:
        """Whether A or B was written to more often than by the update of one step."""
        return any(now - then > 1 for now, then in zip(self.current_versions(), self.versions, strict=True))

    def current_versions(self) -> tuple[int, int]:
        """How often A and B were written to."""
        return self.a_RI._version, self.b_OR._version


class Fold:
    """All adapted modules of a model, presented for one atom at a time.

    Args:
        model: with a LoRA adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [_folded(layer) for layer in _lora_layers(model)]
        self._moves = 0

    @staticmethod
    def possible(model: nn.Module) -> bool:
        """Whether every adapter sits on a linear layer of float32."""
        layers = _lora_layers(model)
        bases = [layer.get_base_layer() for layer in layers]
        return bool(layers) and all(type(b) is nn.Linear and b.weight.dtype == torch.float32 for b in bases)

    @staticmethod
    def worthwhile(model: nn.Module) -> bool:
        """Whether the adapter takes so much of a forward that a copy of the adapted weights pays."""
        adapter = sum(m.a_RI.numel() + m.b_OR.numel() for m in map(_folded, _lora_layers(model)))
        return adapter > WORTH_SHARE * sum(p.numel() for p in model.parameters() if p.dim() == 2)

    @contextmanager
    def at(self, thin: Sequence[Thin]) -> Iterator[None]:
        """Within the block the adapter is one atom, over weights that hold the others.

        Args:
            thin: a direction that perturbs one atom of each module.
        """
        atoms = {u.param: u.left for u in thin if isinstance(u.left, int)}
        self._update([atoms[module.a_RI] for module in self.modules])
        try:
            for module in self.modules:
                module.present(atoms[module.a_RI])
            yield
        finally:
            for module in self.modules:
                module.restore()

    def follow(self, thin: Sequence[Thin]) -> None:
        """Do what `at` does to the brackets, for a step that is taken again without a forward."""
        atoms = {u.param: u.left for u in thin if isinstance(u.left, int)}
        self._update([atoms[module.a_RI] for module in self.modules])
        for module in self.modules:
            module.versions = module.current_versions()

    def renew(self) -> None:
        """Compute the brackets from W, A and B at the next step, so that they follow from nothing else."""
        self._moves = len(self.modules[0].a_RI)

    @staticmethod
    def of_one_atom(thin: Sequence[Thin]) -> list[Thin]:
        """The same direction on an adapter that has its atom only."""
        return [u._replace(left=0) if isinstance(u.left, int) else u._replace(right=0) for u in thin]

    def _update(self, atoms: Sequence[int]) -> None:
        first = self.modules[0]
        if first.bracket is None or any(module.changed for module in self.modules):
            self._moves = 0
            for module, atom in zip(self.modules, atoms, strict=True):
                module.anew(atom)
            return
        for module, atom in zip(self.modules, atoms, strict=True):
            self._moves += module is first and module.atom != atom
            module.move(atom)
        if self._moves >= len(first.a_RI):
            self._moves = 0
            for module, atom in zip(self.modules, atoms, strict=True):
                assert module.bracket is not None
                was = module.bracket.clone()
                module.anew(atom)
                drift = (was - module.bracket).abs().max() / module.bracket.abs().max()
                if not drift <= LARGEST_DRIFT:
                    raise RuntimeError(f"An adapter was changed between steps: its folded weight is {drift:.1e} off.")


def _lora_layers(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, LoraLayer) and NAME in m.lora_A]


def _folded(layer: Any) -> Folded:
    base, pair = layer.get_base_layer(), (layer.lora_A[NAME], layer.lora_B[NAME])
    return Folded(base, pair, base.weight, pair[0].weight, pair[1].weight, layer.scaling[NAME])
