"""Queries: losses read at points around the parameters, which keep every bit.

    losses_at(closure, [u, ...], [t, ...])[i][j] = l(theta + t_j u_i)

A closure that can read several points at once (`BatchedObjective`) is asked for all of them together; for any other one
the perturbation is written to the parameters, the closure called, and the parameters restored from a copy.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch

from zo_runner.errors import Diverged
from zo_runner.methods.directions import Direction, views

# Returns the loss of the current batch at the current parameters, 0-d.
Closure = Callable[[], torch.Tensor]


@runtime_checkable
class BatchedObjective(Protocol):
    """A closure that can read the loss at points around the parameters without writing to them."""

    def __call__(self) -> torch.Tensor:
        """Return the loss at the parameters, 0-d."""
        ...

    def supports(self, directions: Sequence[Direction]) -> bool:
        """True if it can read points on all these directions."""
        ...

    def losses_at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """Return the losses at theta + t u, [D F], for each u of `directions` and each t of `offsets` in turn."""
        ...


def losses_along(closure: Closure, direction: Direction, offsets: Sequence[float]) -> list[float]:
    """Losses at theta + t u for every t in `offsets`. One query each. See `losses_at`."""
    return losses_at(closure, [direction], offsets)[0]


def losses_at(closure: Closure, directions: Sequence[Direction], offsets: Sequence[float]) -> list[list[float]]:
    """Losses at theta + t u for every t in `offsets`, along each u of `directions`. One query each.

    The parameters are bit-identical afterwards; a `BatchedObjective` that supports the directions never writes to them.

    Raises:
        Diverged: a loss is not finite.
    """
    if not reads_at_once(closure, directions):
        return [_one_by_one(closure, direction, offsets) for direction in directions]
    assert isinstance(closure, BatchedObjective)
    losses = closure.losses_at(directions, offsets).view(len(directions), len(offsets))
    return [[finite(loss) for loss in row] for row in losses.tolist()]


def reads_at_once(closure: Closure, directions: Sequence[Direction]) -> bool:
    """True if the closure can read the loss along `directions` without writing to the parameters."""
    return isinstance(closure, BatchedObjective) and closure.supports(directions)


def _one_by_one(closure: Closure, direction: Direction, offsets: Sequence[float]) -> list[float]:
    """Losses with every perturbation written to the parameters, which are bit-identical afterwards.

    They are so also when the closure raises: adding and subtracting would round, so their numbers are kept, not
    computed back. A whole parameter points at one buffer of its size meanwhile; a view of one is overwritten, and
    restored from a copy. Either costs as much memory as the perturbed tensors, and each offset is one pass over them.
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
    """A view, its numbers, and the tensor that perturbed numbers are written to.

    Only a parameter itself can be pointed at other numbers, for everybody who holds it.
    """
    if isinstance(view, torch.nn.Parameter):
        return view, view.data, torch.empty_like(view.data)
    return view, view.clone(), view


def finite(loss: torch.Tensor | float) -> float:
    """The loss as a float, never replaced by another number.

    Raises:
        Diverged: it is NaN or infinite.
    """
    value = float(loss)
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value}")
    return value
