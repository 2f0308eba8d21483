"""What a query perturbs, and how the loss is read at a perturbed point.

A direction is a list of parts (view, component, group): `view` is a view of a trainable parameter, `component` the
part of u that belongs to it, in the same shape, and `group` the parameter group that holds the learning rate.
Iterating over a direction yields the same numbers every time, so a large one may draw them again instead of keeping
them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from zo_runner.errors import Diverged

Closure = Callable[[], torch.Tensor]


class Part(NamedTuple):
    """The share of one tensor in a direction."""

    view: torch.Tensor
    component: torch.Tensor
    group: dict[str, Any]


Direction = Iterable[Part]
Slots = Sequence[tuple[torch.Tensor, Callable[[], torch.Tensor], dict[str, Any]]]

# A direction of up to this many float32 numbers (1 GiB) is worth its memory: on a CPU drawing takes long.
KEPT_NUMBERS = 2**28


class Redrawn:
    """A direction whose numbers are drawn again at every pass, because keeping them would cost as much as the model.

    Args:
        slots: for each tensor its view, the function that draws its component, and its group.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def __iter__(self) -> Iterator[Part]:
        for view, draw, group in self.slots:
            yield Part(view, draw(), group)


def drawn(slots: Slots) -> Direction:
    """A direction from what `Redrawn` takes; up to KEPT_NUMBERS numbers are drawn once and kept."""
    direction = Redrawn(slots)
    return list(direction) if sum(view.numel() for view, _, _ in slots) <= KEPT_NUMBERS else direction


def views(direction: Direction) -> list[torch.Tensor]:
    """What a direction perturbs, without drawing any numbers."""
    if isinstance(direction, Redrawn):
        return [view for view, _, _ in direction.slots]
    return [part.view for part in direction]


def losses_along(closure: Closure, direction: Direction, offsets: Sequence[float]) -> list[float]:
    """The losses at theta + t u for every t in `offsets`. One query each.

    The parameters are bit-identical afterwards, also when the closure raises: their numbers are never computed back,
    since adding and subtracting rounds. A whole parameter is looked at elsewhere, in one buffer of its size, while its
    own numbers lie untouched; a view of one is overwritten, and restored from a copy. Either costs as much memory as
    the perturbed tensors, and each offset is one pass over them.

    Raises:
        Diverged: a loss is not finite.
    """
    places = [_place(view) for view in views(direction)]
    losses = []
    try:
        for t in offsets:
            for part, (view, origin, point) in zip(direction, places, strict=True):
                torch.add(origin, part.component, alpha=t, out=point)
                if point is not view:
                    view.data = point
            losses.append(finite(closure()))
    finally:
        for view, origin, point in places:
            if point is view:
                view.copy_(origin)
            else:
                view.data = origin
    return losses


def _place(view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A view, its numbers, and the tensor that perturbed ones are written to.

    Only a parameter itself can be pointed at other numbers, for everybody who holds it.
    """
    if isinstance(view, torch.nn.Parameter):
        return view, view.data, torch.empty_like(view.data)
    return view, view.clone(), view


def move(direction: Direction, slope: float) -> None:
    """theta <- theta - lr * slope * u, in place, with the lr of each group. lr = 0 or slope = 0 changes no bit."""
    for part in direction:
        amount = part.group["lr"] * slope
        if amount != 0.0:
            part.view.sub_(part.component, alpha=amount)


def finite(loss: torch.Tensor | float) -> float:
    """The loss as a float.

    Raises:
        Diverged: it is NaN or infinite. It is never replaced by another number.
    """
    value = float(loss)
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value}")
    return value
