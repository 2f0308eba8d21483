"""A language model at several points around its parameters in one forward, without a write to any parameter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zo_runner.methods.directions import Direction, LazyDirection, LowRankPart
from zo_runner.models.atom_folding import Fold
from zo_runner.models.perturbation_hooks import PointHooks

# With evaluation=auto the most tokens, padding included, that a forward at several points may read. Beyond it a forward
# is bound by arithmetic and gains nothing from more rows, which then cost memory and cache.
CPU_TOKENS_AT_ONCE = 1024
ACCELERATOR_TOKENS_AT_ONCE = 8192

# The same with evaluation=batched, but for what a step needs.
MOST_TOKENS_AT_ONCE = 16_384


class PerturbedModel:
    """A model at points around its parameters, which are not written to.

    Args:
        model: base model, or base with adapter.
        evaluation: "batched", several points in a forward wherever it can be; "auto", where it pays; "sequential",
            never.
        fold: whether atoms that are not queried are folded into the weights; None where it pays.
    """

    def __init__(self, model: Any, evaluation: str, fold: bool | None) -> None:
        self.hooks, self.evaluation = PointHooks(model), evaluation
        folds = Fold.possible(model) and (Fold.worthwhile(model) if fold is None else fold)
        self.fold = Fold(model) if folds else None
        on_cpu = next(model.parameters()).device.type == "cpu"
        self.tokens_at_once = CPU_TOKENS_AT_ONCE if on_cpu else ACCELERATOR_TOKENS_AT_ONCE

    def reads(self, directions: Sequence[Direction], offsets: int, tokens: int) -> int:
        """Number of points that one forward reads; 0 where perturbations are to be written to the parameters.

        Args:
            directions: directions that the points lie on.
            offsets: number of points on each direction.
            tokens: tokens that one point reads, padding included.
        """
        parts = low_rank_parts_of(directions)
        if parts is None or not all(map(self.hooks.covers, parts)):
            return 0
        if self.evaluation == "batched":
            return max(MOST_TOKENS_AT_ONCE // tokens, offsets)
        points = self.tokens_at_once // tokens
        if self.evaluation == "auto" and points >= max(offsets, 2):
            return points
        return int(self.fold is not None and atoms_of(parts[:1]) is not None)

    @contextmanager
    def at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> Iterator[None]:
        """Evaluate forwards within a block at the points; their rows are repeated once per point."""
        parts = low_rank_parts_of(directions)
        assert parts is not None
        if self.fold is None or atoms_of(parts) is None:
            with self.hooks.at(parts, offsets):
                yield
            return
        with self.fold.at(parts[0]), self.hooks.at([self.fold.of_free_atoms(u) for u in parts], offsets):
            yield

    def follow(self, direction: Direction) -> None:
        """Move the folded weights along with a replayed step, so that later steps round as they did."""
        parts = low_rank_parts_of([direction])
        if self.fold is not None and parts is not None and atoms_of(parts) is not None:
            self.fold.follow(parts[0])

    def renew(self) -> None:
        """Make later steps depend on earlier ones through the parameters alone."""
        if self.fold is not None:
            self.fold.renew()


def low_rank_parts_of(directions: Sequence[Direction]) -> list[Sequence[LowRankPart]] | None:
    """Low-rank parts of all directions; None if one has none."""
    found = [u.low_rank_parts if isinstance(u, LazyDirection) else None for u in directions]
    return None if None in found else [parts for parts in found if parts is not None]


def atoms_of(parts: Sequence[Sequence[LowRankPart]]) -> list[int] | None:
    """The atom of each module that all directions perturb; None if they perturb more, or different ones."""
    first, *others = ([u.left for u in direction if isinstance(u.left, int)] for direction in parts)
    return first if 2 * len(first) == len(parts[0]) and all(other == first for other in others) else None
