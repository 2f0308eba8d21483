"""Directions: the numbers that a query adds to the parameters and an update moves them along.

A direction is a list of parts (view, component, group): `view` is a view of a trainable parameter, `component` the
part of u that belongs to it, in the same shape, and `group` the parameter group that holds the learning rate.
Iterating over a direction yields the same numbers every time, so a large one may draw them again instead of keeping
them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch


class DirectionPart(NamedTuple):
    """The share of one tensor in a direction."""

    view: torch.Tensor
    component: torch.Tensor
    group: dict[str, Any]


class LowRankPart(NamedTuple):
    """The share of one parameter in a direction as few numbers, for reading the loss without writing to parameters.

    u = left @ right' for a matrix [m, n], with left [m, r] and right [n, r], where an integer k stands for the unit
    vector e_k: (k, z) is a row and (z, k) a column. Where left is None, u is `right`, in the parameter's own shape.
    """

    param: torch.Tensor
    left: torch.Tensor | int | None
    right: torch.Tensor | int

    def flipped(self) -> "LowRankPart":
        """The same share with the other sign, -u."""
        if isinstance(self.right, torch.Tensor):
            return self._replace(right=-self.right)
        assert isinstance(self.left, torch.Tensor)
        return self._replace(left=-self.left)

    def dense(self) -> torch.Tensor:
        """The share in the parameter's own shape; for parts without unit vectors."""
        assert isinstance(self.right, torch.Tensor)
        assert not isinstance(self.left, int)
        return self.right if self.left is None else self.left @ self.right.T


class Slot(NamedTuple):
    """The place of one share in a direction, and the function that draws its numbers.

    Attributes:
        param: the trainable parameter.
        view: the parameter itself, or the view of it that is perturbed.
        draw: returns the component, in the shape of `view`; the same numbers at every call.
        group: the parameter group.
    """

    param: torch.Tensor
    view: torch.Tensor
    draw: Callable[[], torch.Tensor]
    group: dict[str, Any]


Direction = Iterable[DirectionPart]

# A direction of up to this many float32 numbers (1 GiB) is worth its memory: on a CPU drawing takes long.
KEPT_NUMBERS = 2**28


class LazyDirection:
    """A direction whose numbers are drawn when they are asked for.

    Up to KEPT_NUMBERS they are then kept, beyond that drawn again at every pass, since keeping them would cost as much
    as the model.

    Args:
        slots: one for each tensor.
        low_rank: the same direction as few numbers; None if it has no such form.
        whole: the components cover whole parameters and are few numbers themselves.
    """

    def __init__(
        self, slots: Sequence[Slot], *, low_rank: Sequence[LowRankPart] | None = None, whole: bool = False
    ) -> None:
        self.slots = slots
        self._low_rank, self._whole = low_rank, whole
        self._kept: list[DirectionPart] | None = None

    def __iter__(self) -> Iterator[DirectionPart]:
        if self._kept is not None:
            return iter(self._kept)
        parts = (DirectionPart(slot.view, slot.draw(), slot.group) for slot in self.slots)
        if sum(slot.view.numel() for slot in self.slots) > KEPT_NUMBERS:
            return parts
        self._kept = list(parts)
        return iter(self._kept)

    def flipped(self, params: Collection[torch.Tensor]) -> "LazyDirection":
        """The same direction with the other sign in some parameters."""
        flips = set(map(id, params))
        slots = [slot._replace(draw=_negated(slot.draw)) if id(slot.param) in flips else slot for slot in self.slots]
        low_rank = self._low_rank
        if low_rank is not None:
            low_rank = [part.flipped() if id(part.param) in flips else part for part in low_rank]
        return LazyDirection(slots, low_rank=low_rank, whole=self._whole)

    @property
    def low_rank_parts(self) -> Sequence[LowRankPart] | None:
        """The direction as few numbers, or None if it has no such form."""
        return [LowRankPart(part.view, None, part.component) for part in self] if self._whole else self._low_rank


def _negated(draw: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    return lambda: draw().neg()


def views(direction: Direction) -> list[torch.Tensor]:
    """The tensors that a direction perturbs, without drawing any numbers."""
    if isinstance(direction, LazyDirection):
        return [slot.view for slot in direction.slots]
    return [part.view for part in direction]


def move(direction: Direction, slope: float) -> None:
    """Step by theta <- theta - lr * slope * u, in place, with the lr of each group.

    lr = 0 or slope = 0 changes no bit.
    """
    for part in direction:
        amount = part.group["lr"] * slope
        if amount != 0.0:
            part.view.sub_(part.component, alpha=amount)
