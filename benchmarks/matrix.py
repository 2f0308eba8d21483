"""What is measured: which cells, and in each of them which variants against each other."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from benchmarks import steps
from benchmarks.evaluation import throughput
from benchmarks.floor import WAYS, copies, fastest, pairs
from benchmarks.plain_step import Plain
from benchmarks.rounds import Variant, in_turn
from benchmarks.settings import Setting, Work
from zo_runner.training.memory import StepMemory

# What the other axes are held at while one grows.
BATCH, RANK, LENGTH_BATCH, DIRECTIONS = 16, 16, 4, 16


@dataclass(frozen=True)
class Grid:
    """How much is measured on a model.

    Attributes:
        rounds: per cell.
        rounds_alone: per cell at batch 1, whose measurements are the shortest and scatter most.
        examples: a measurement takes as many steps as it needs to see that many, and one at least.
        scored: examples of the evaluation.
        batches: of the steps, each with every rank.
        ranks: of the steps.
        growing: batches, lengths in tokens, ranks and numbers of directions that growth is read at.
        probed_lengths: lengths in tokens that a probe of DIRECTIONS is read at.
        memory: batches of the memory of a step.
        rounded_ranks: of the rounding of slopes.
        rounded_directions: that it is read from.
    """

    rounds: int
    examples: int
    scored: int
    batches: tuple[int, ...] = (1, 4, 16)
    ranks: tuple[int, ...] = (1, 16, 256)
    growing_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    growing_lengths: tuple[int, ...] = (16, 32, 64, 128, 224)
    growing_ranks: tuple[int, ...] = (1, 4, 16, 64, 256)
    growing_directions: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    probed_lengths: tuple[int, ...] = (8, 16, 32, 64)
    memory: tuple[int, ...] = (1, 16)
    rounded_ranks: tuple[int, ...] = (16, 256)
    rounded_directions: int = 64
    rounds_alone: int = 9


POCKET = Grid(rounds=9, examples=32, scored=256)
REAL = Grid(
    rounds=3, examples=4, scored=64, growing_batches=(1, 4, 16, 32), growing_directions=(1, 4, 16), rounded_directions=8
)
QUICK = Grid(
    rounds=3,
    rounds_alone=3,
    examples=8,
    scored=32,
    batches=(1, 16),
    ranks=(1, 16),
    growing_batches=(1, 8),
    growing_lengths=(16, 128),
    growing_ranks=(1, 256),
    growing_directions=(1, 16),
    probed_lengths=(16,),
    memory=(16,),
    rounded_ranks=(16,),
    rounded_directions=8,
)


@dataclass(frozen=True)
class Cell:
    """Variants of one computation, timed in turn.

    Attributes:
        model: its name.
        table: "steps", "batch", "length", "rank", "directions", "probe" or "evaluation".
        batch: examples per step.
        rank: of the adapter; None where the variants differ in it, or have none.
        length: of every prompt, in tokens; None where they are mixed.
        directions: that slopes are read along; None for a step.
        way: in which the floor was computed, see `floor`; None without one.
        gap: largest difference of two variants' losses, in nats.
        seconds: per step, probe or example, of every variant in every round.
    """

    model: str
    table: str
    batch: int
    rank: int | None = None
    length: int | None = None
    directions: int | None = None
    way: str | None = None
    gap: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Bytes of the tensors that exist at once, at most: see `zo_runner.training.memory`.

    Attributes:
        model: its name.
        method: whose step it is; "plain" for the loop of the literature.
        evaluation: how its points are evaluated; "" for the plain loop.
        batch: examples per step.
        weights: the model's own, adapter included.
        forward: what a bare forward of the batch takes beside them.
        step: what a step takes beside them.
    """

    model: str
    method: str
    evaluation: str
    batch: int
    weights: int
    forward: int
    step: int


def cells(setting: Setting, grid: Grid) -> Iterator[Cell]:
    """Measure every cell of a model."""
    works = {size: Work(setting, setting.mixed, size) for size in {*grid.batches, *grid.growing_batches}}
    ways = {size: fastest(work, range(_count(grid, work))) for size, work in works.items()}
    for batch, rank in itertools.product(grid.batches, grid.ranks):
        yield _steps(grid, works[batch], rank, ways[batch], "steps")
    for batch in grid.growing_batches:
        yield _steps(grid, works[batch], RANK, ways[batch], "batch")
    for length in grid.growing_lengths:
        work = Work(setting, setting.of_length(length), LENGTH_BATCH)
        yield _steps(grid, work, RANK, "equal lengths", "length", length)
    for batch in sorted({1, BATCH}):
        yield _ranks(grid, Work(setting, setting.mixed, batch))
    for directions in grid.growing_directions:
        yield _directions(grid, Work(setting, setting.mixed, 1), directions, "directions")
    for length in grid.probed_lengths:
        yield _directions(grid, Work(setting, setting.of_length(length), 1), DIRECTIONS, "probe", length)
    seconds, gap = throughput(setting, rounds=grid.rounds, examples=grid.scored)
    yield Cell(setting.name, "evaluation", BATCH, gap=gap, seconds=seconds)


def memory(setting: Setting, grid: Grid) -> Iterator[Memory]:
    """Measure the memory of a step of every method, and of the plain loop, beside that of a forward."""
    for batch in grid.memory:
        work = Work(setting, setting.mixed, batch)
        rows = []
        for method, evaluation in itertools.product(steps.METHODS, steps.EVALUATIONS):
            ours, tensors = steps.Ours(work, rank=RANK, method=method, evaluation=evaluation), StepMemory()
            ours(range(2), tensors)  # the second step is measured
            facts = tensors.facts(ours.model)
            found = (facts["model"] or 0, facts["inference"] or 0, facts["step"] or 0)
            rows.append(Memory(setting.name, method, evaluation, batch, *found))
        loop, tensors = Plain(work, rank=RANK, lr=steps.LR, eps=steps.EPS), StepMemory()
        with tensors.of_step():
            loop(range(1, 2))
        yield from (*rows, replace(rows[0], method="plain", evaluation="", step=tensors.step or 0))


def _steps(grid: Grid, work: Work, rank: int, way: str, table: str, length: int | None = None) -> Cell:
    """The floor and our steps; in the table of steps also the plain loop, and our step over all that it perturbs."""
    variants: dict[str, Variant] = {"floor": pairs(work, WAYS[way])}
    variants |= {name: steps.Ours(work, rank=rank, evaluation=name) for name in steps.EVALUATIONS}
    if table == "steps":
        variants["plain"] = Plain(work, rank=rank, lr=steps.LR, eps=steps.EPS)
        variants["all atoms"] = steps.Ours(work, rank=rank, method="lora_zo")
    seconds, gap = in_turn(variants, rounds=_rounds(grid, work), steps=_count(grid, work))
    return Cell(work.setting.name, table, work.size, rank, length, None, way, gap, seconds)


def _ranks(grid: Grid, work: Work) -> Cell:
    """Our steps at every rank, against each other."""
    variants = {str(rank): steps.Ours(work, rank=rank) for rank in grid.growing_ranks}
    seconds, gap = in_turn(variants, rounds=_rounds(grid, work), steps=_count(grid, work))
    return Cell(work.setting.name, "rank", work.size, gap=gap, seconds=seconds)


def _directions(grid: Grid, work: Work, directions: int, table: str, length: int | None = None) -> Cell:
    """Probes of one example along some directions, and a bare forward of as many tokens."""
    variants = {
        name: steps.probe(work, evaluation, rank=RANK, directions=directions)
        for name, evaluation in steps.PROBES.items()
    }
    variants["bare forward"] = copies(work, 2 * directions)
    seconds, gap = in_turn(variants, rounds=_rounds(grid, work), steps=max(1, _count(grid, work) // directions))
    return Cell(work.setting.name, table, work.size, RANK, length, directions, gap=gap, seconds=seconds)


def _rounds(grid: Grid, work: Work) -> int:
    """Rounds of a cell."""
    return grid.rounds_alone if work.size == 1 else grid.rounds


def _count(grid: Grid, work: Work) -> int:
    """Steps per measurement."""
    return max(1, grid.examples // work.size)
