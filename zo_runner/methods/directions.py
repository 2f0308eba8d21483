"""What a query perturbs, and how the loss is read at a perturbed point.

A direction is a list of parts (view, component, group): `view` is a view of a trainable parameter, `component` the
part of u that belongs to it, in the same shape, and `group` the parameter group that holds the learning rate.
Iterating over a direction yields the same numbers every time, so a large one may draw them again instead of keeping
them.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from zo_runner.errors import Diverged

Closure = Callable[[], torch.Tensor]


class DirectionPart(NamedTuple):
    """The share of one tensor in a direction."""

    view: torch.Tensor
    component: torch.Tensor
    group: dict[str, Any]


class LowRankPart(NamedTuple):
    """The share of one parameter in a direction as few numbers, for who reads the loss without writing to parameters.

    u = left @ right' for a matrix [m, n], with left [m, r] and right [n, r], where an integer k stands for the unit
    vector e_k: (k, z) is a row and (z, k) a column. Where left is None, u is `right`, in the parameter's own shape.
    """

    param: torch.Tensor
    left: torch.Tensor | int | None
    right: torch.Tensor | int

    def flipped(self) -> "LowRankPart":
        """-u."""
        if isinstance(self.right, torch.Tensor):
            return self._replace(right=-self.right)
        assert isinstance(self.left, torch.Tensor)
        return self._replace(left=-self.left)

    def dense(self) -> torch.Tensor:
        """u of a matrix or of what is whole; no unit vectors."""
        assert isinstance(self.right, torch.Tensor)
        assert not isinstance(self.left, int)
        return self.right if self.left is None else self.left @ self.right.T


Direction = Iterable[DirectionPart]
Slot = tuple[torch.Tensor, Callable[[], torch.Tensor], dict[str, Any]]

# A direction of up to this many float32 numbers (1 GiB) is worth its memory: on a CPU drawing takes long.
KEPT_NUMBERS = 2**28


class LazyDirection:
    """A direction whose numbers are drawn when they are asked for.

    Up to KEPT_NUMBERS they are then kept, beyond that drawn again at every pass, since keeping them would cost as much
    as the model.

    Args:
        slots: for each tensor its view, the function that draws its component, and its group.
        thin: the same direction as few numbers, where it has any such form.
        whole: whether its components, which cover whole parameters, are few numbers themselves.
    """

    def __init__(
        self, slots: Sequence[Slot], *, thin: Sequence[LowRankPart] | None = None, whole: bool = False
    ) -> None:
        self.slots = slots
        self._thin, self._whole = thin, whole
        self._kept: list[DirectionPart] | None = None

    def __iter__(self) -> Iterator[DirectionPart]:
        if self._kept is not None:
            return iter(self._kept)
        parts = (DirectionPart(view, draw(), group) for view, draw, group in self.slots)
        if sum(view.numel() for view, _, _ in self.slots) > KEPT_NUMBERS:
            return parts
        self._kept = list(parts)
        return iter(self._kept)

    def flipped(self, params: Collection[torch.Tensor]) -> "LazyDirection":
        """The same direction with the other sign in some parameters, and in views of them."""
        places = [(param.data_ptr(), param.data_ptr() + param.nbytes) for param in params]

        def component(view: torch.Tensor, draw: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
            turns = any(start <= view.data_ptr() < end for start, end in places)
            return (lambda: draw().neg()) if turns else draw

        slots = [(view, component(view, draw), group) for view, draw, group in self.slots]
        if self._whole or self._thin is None:
            return LazyDirection(slots, whole=self._whole)
        turns = {id(param) for param in params}
        return LazyDirection(slots, thin=[part.flipped() if id(part.param) in turns else part for part in self._thin])

    @property
    def thin(self) -> Sequence[LowRankPart] | None:
        """The direction as few numbers, or None."""
        return [LowRankPart(part.view, None, part.component) for part in self] if self._whole else self._thin


@runtime_checkable
class BatchedObjective(Protocol):
    """A closure that can read the loss at points around the parameters without writing to them."""

    def __call__(self) -> torch.Tensor:
        """The loss at the parameters, 0-d."""
        ...

    def supports(self, directions: Sequence[Direction]) -> bool:
        """Whether it can along these directions."""
        ...

    def losses_at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """The losses at theta + t u, [D F], for each u of `directions` and each t of `offsets` in turn."""
        ...


def views(direction: Direction) -> list[torch.Tensor]:
    """What a direction perturbs, without drawing any numbers."""
    if isinstance(direction, LazyDirection):
        return [view for view, _, _ in direction.slots]
    return [part.view for part in direction]


def losses_along(closure: Closure, direction: Direction, offsets: Sequence[float]) -> list[float]:
    """The losses at theta + t u for every t in `offsets`. One query each. See `losses_at`."""
    return losses_at(closure, [direction], offsets)[0]


def losses_at(closure: Closure, directions: Sequence[Direction], offsets: Sequence[float]) -> list[list[float]]:
    """The losses at theta + t u for every t in `offsets`, along each u of `directions`. One query each.

    The parameters are bit-identical afterwards. A closure that reads points is asked for all of them, and
    the parameters are not written to.

    Raises:
        Diverged: a loss is not finite.
    """
    if not reads_at_once(closure, directions):
        return [_one_by_one(closure, direction, offsets) for direction in directions]
    assert isinstance(closure, BatchedObjective)
    losses = closure.losses_at(directions, offsets).view(len(directions), len(offsets))
    return [[finite(loss) for loss in row] for row in losses.tolist()]


def reads_at_once(closure: Closure, directions: Sequence[Direction]) -> bool:
    """Whether a closure can read the loss along `directions` without writing to the parameters."""
    return isinstance(closure, BatchedObjective) and closure.supports(directions)


def _one_by_one(closure: Closure, direction: Direction, offsets: Sequence[float]) -> list[float]:
    """The losses with every perturbation written to the parameters, which are bit-identical afterwards.

    Also when the closure raises: their numbers are never computed back, since adding and subtracting rounds. A whole
    parameter is looked at elsewhere, in one buffer of its size, while its own numbers lie untouched; a view of one is
    overwritten, and restored from a copy. Either costs as much memory as the perturbed tensors, and each offset is one
    pass over them.
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
