"""Variants of one computation, timed in turn.

Every round takes each variant once, over the same steps, and begins with another one: whatever else the machine does,
and whether it grows warm, then hits all alike. What is compared is the ratio within a round.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

# Largest difference of two losses, in nats, that may still be the loss of the same batch: rounding stays far below.
TOLERANCE = 1e-4


class TimedSteps(NamedTuple):
    """What some steps came to: seconds per step, and the losses that they saw, in nats."""

    seconds: float
    losses: list[float]


Variant = Callable[[range], TimedSteps]


def in_turn(
    variants: Mapping[str, Variant], *, rounds: int, steps: int, warm_up: int = 1
) -> tuple[dict[str, list[float]], float]:
    """Seconds per step of every variant in every round, and the largest gap between two variants' losses, in nats.

    Args:
        variants: by name. Each is asked for consecutive ranges of steps.
        rounds: that are counted.
        steps: per variant and round.
        warm_up: rounds before these, which are not.

    Raises:
        RuntimeError: two variants do not see the same loss. A comparison of different things is worth nothing.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names, gap = list(variants), 0.0
    with _no_collection():
        for number in range(warm_up + rounds):
            first = number % len(names)
            done = range(number * steps, (number + 1) * steps)
            taken = {name: variants[name](done) for name in names[first:] + names[:first]}
            rows = zip(*(part.losses for part in taken.values()), strict=True)
            apart = [abs(loss - row[0]) for row in rows for loss in row]
            if not all(difference < TOLERANCE for difference in apart):  # nor may it be NaN
                raise RuntimeError(f"The variants do not see the same losses: {taken}.")
            gap = max(gap, *apart)
            if number >= warm_up:
                for name, part in taken.items():
                    seconds[name].append(part.seconds)
    return seconds, gap


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection within the block; what there is goes first."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
