"""Adapted weights that hold all atoms but a few, so that a step costs the same at every rank.

W + s sum_k b_k a_k'  =  (W + s sum_{j not in F} b_j a_j')  +  s sum_{k in F} b_k a_k'

F are the few atoms, BLOCK neighbours, that the queried one is among. The bracket is kept, and a query sees it as the
frozen weight beside an adapter that has the atoms of F only. A step that queries an atom of another block swaps
the two blocks, which reads and writes every adapted weight: in cyclic order once in BLOCK steps. Rounding adds up,
so the bracket is computed anew from W, A and B after as many changes as there are blocks; then it is also compared with
what it had become, since an adapter that was changed in between would otherwise go unnoticed.

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

from zo_runner.methods.directions import LowRankPart
from zo_runner.models.lora import NAME

# The share of a model's matrices above which the adapter's arithmetic is worth a copy of the adapted weights.
WORTH_SHARE = 0.03

# Atoms that are left out of a bracket together. An adapter of that rank is next to nothing beside a forward.
BLOCK = 8

# Largest difference of a bracket from the exact one, as a share of its largest entry: rounding makes some 1e-6 of it.
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
        bracket: W + s sum b_j a_j' over the atoms j that are not free, None before it was computed.
        first: the first of the free atoms, which are left out of it.
        versions: of A and B when it was last in use.
    """

    base: nn.Linear
    pair: tuple[nn.Linear, nn.Linear]
    weight: nn.Parameter
    a_RI: nn.Parameter
    b_OR: nn.Parameter
    scaling: float
    bracket: nn.Parameter | None = None
    first: int = -1
    versions: tuple[int, int] = (-1, -1)

    @property
    def free(self) -> slice:
        """Slice of the free atoms; that of the last block may end beyond the rank."""
        return slice(self.first, self.first + BLOCK)

    def present(self) -> None:
        """Show the frozen layer with the bracket, and the adapter with the other atoms alone."""
        assert self.bracket is not None
        self.base.weight = self.bracket
        for layer, part in zip(self.pair, (self.a_RI[self.free], self.b_OR[:, self.free]), strict=True):
            layer.weight = nn.Parameter(part, requires_grad=False)

    def restore(self) -> None:
        """Give the layers their own parameters back."""
        self.base.weight = self.weight
        self.pair[0].weight, self.pair[1].weight = self.a_RI, self.b_OR
        self.versions = self.current_versions()

    def anew(self, first: int) -> None:
        """Compute the bracket from W, A and B."""
        self.first = first
        others_OR = self.b_OR.clone()
        others_OR[:, self.free] = 0.0
        exact = torch.addmm(self.weight, others_OR, self.a_RI, alpha=self.scaling)
        if self.bracket is None:
            self.bracket = nn.Parameter(exact, requires_grad=False)
        else:
            self.bracket.copy_(exact)

    def move(self, first: int) -> None:
        """Swap the block of free atoms: put the old one into the bracket, take the new one out."""
        assert self.bracket is not None
        if first != self.first:
            was, self.first = self.free, first
            out_OK = torch.cat((self.b_OR[:, was], -self.b_OR[:, self.free]), dim=1)
            in_KI = torch.cat((self.a_RI[was], self.a_RI[self.free]))
            self.bracket.addmm_(out_OK, in_KI, alpha=self.scaling)

    @property
    def changed(self) -> bool:
        """True if A or B was written to more often than by the update of one step."""
        return any(now - then > 1 for now, then in zip(self.current_versions(), self.versions, strict=True))

    def current_versions(self) -> tuple[int, int]:
        """Numbers of writes to A and to B so far."""
        return self.a_RI._version, self.b_OR._version


class Fold:
    """All adapted modules of a model, presented for a few atoms at a time.

    Args:
        model: with a LoRA adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [_folded(layer) for layer in _lora_layers(model)]
        self._moves = 0

    @staticmethod
    def possible(model: nn.Module) -> bool:
        """True if every adapter sits on a linear layer of float32."""
        layers = _lora_layers(model)
        bases = [layer.get_base_layer() for layer in layers]
        return bool(layers) and all(type(b) is nn.Linear and b.weight.dtype == torch.float32 for b in bases)

    @staticmethod
    def worthwhile(model: nn.Module) -> bool:
        """True if the adapter takes so much of a forward that a copy of the adapted weights pays."""
        adapter = sum(m.a_RI.numel() + m.b_OR.numel() for m in map(_folded, _lora_layers(model)))
        return adapter > WORTH_SHARE * sum(p.numel() for p in model.parameters() if p.dim() == 2)

    @contextmanager
    def at(self, parts: Sequence[LowRankPart]) -> Iterator[None]:
        """Reduce the adapter to a few atoms within a block, over weights that hold the others.

        Args:
            parts: a direction that perturbs one atom of each module.
        """
        self._update(parts)
        try:
            for module in self.modules:
                module.present()
            yield
        finally:
            for module in self.modules:
                module.restore()

    def follow(self, parts: Sequence[LowRankPart]) -> None:
        """Move the brackets as `at` would, for a step that is replayed without a forward."""
        self._update(parts)
        for module in self.modules:
            module.versions = module.current_versions()

    def renew(self) -> None:
        """Make the next step compute the brackets from W, A and B alone."""
        self._moves = self.blocks

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.modules[0].a_RI) // BLOCK)

    @staticmethod
    def of_free_atoms(parts: Sequence[LowRankPart]) -> list[LowRankPart]:
        """The same direction on an adapter that has only the block of its atom."""
        return [
            u._replace(left=u.left % BLOCK) if isinstance(u.left, int) else u._replace(right=u.right % BLOCK)
            for u in parts
        ]

    def _update(self, parts: Sequence[LowRankPart]) -> None:
        atoms = {u.param: u.left for u in parts if isinstance(u.left, int)}
        firsts = [atoms[module.a_RI] // BLOCK * BLOCK for module in self.modules]
        lead = self.modules[0]
        if lead.bracket is None or any(module.changed for module in self.modules):
            self._moves = 0
            for module, block in zip(self.modules, firsts, strict=True):
                module.anew(block)
            return
        for module, block in zip(self.modules, firsts, strict=True):
            self._moves += module is lead and module.first != block
            module.move(block)
        if self._moves >= self.blocks:
            self._moves = 0
            for module, block in zip(self.modules, firsts, strict=True):
                assert module.bracket is not None
                was = module.bracket.clone()
                module.anew(block)
                drift = (was - module.bracket).abs().max() / module.bracket.abs().max()
                if not drift <= LARGEST_DRIFT:
                    raise RuntimeError(f"An adapter was changed between steps: its folded weight is {drift:.1e} off.")


def _lora_layers(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, LoraLayer) and NAME in m.lora_A]


def _folded(layer: Any) -> Folded:
    base, pair = layer.get_base_layer(), (layer.lora_A[NAME], layer.lora_B[NAME])
    return Folded(base, pair, base.weight, pair[0].weight, pair[1].weight, layer.scaling[NAME])
