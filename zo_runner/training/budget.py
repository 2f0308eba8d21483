"""The ledger: what a run may spend and what it has spent.

One evaluation of the loss of one batch at one point is one query, and one with its gradient is three. Training and
calibration queries are charged to the budget, which is granted in queries, in tokens or in seconds; noise
re-evaluations and dev/test evaluations are booked beside it and never charged.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Purpose = Literal["train", "calibration", "noise"]
Phase = Literal["train", "calibration", "noise", "eval"]
PHASES: tuple[Phase, ...] = ("train", "calibration", "noise", "eval")
CHARGED: tuple[Purpose, ...] = ("train", "calibration")


@dataclass(frozen=True)
class Budget:
    """Granted amount: a number of queries, of tokens, or of seconds.

    Attributes:
        queries: loss evaluations.
        tokens: non-padding tokens that these read.
        seconds: wall clock of training and calibration. It is looked at before a step begins, so that a run overshoots
            by one step at most, or by the calibration of one radius.

    Raises:
        ValueError: not exactly one is given, or it is negative or not a number.
    """

    queries: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in asdict(self).values() if value is not None]
        if len(given) != 1 or not given[0] >= 0:
            raise ValueError(f"Invalid budget: {asdict(self)!r}. Must be one number >= 0, and None for the others.")

    @property
    def unit(self) -> str:
        """The name of what is granted: queries, tokens or seconds."""
        return next(name for name, value in asdict(self).items() if value is not None)

    @property
    def limit(self) -> float:
        """Granted amount, in the unit."""
        limit: float = getattr(self, self.unit)
        return limit

    def __str__(self) -> str:
        return f"{self.limit:g} {self.unit}" if self.unit == "seconds" else f"{self.limit} {self.unit}"


def _nothing() -> float:
    return 0.0


@dataclass
class Ledger:
    """Counts queries, examples, tokens, operations and seconds; says what is affordable.

    Attributes:
        budget: what may be charged.
        computed: floating-point operations of the model so far, whatever for; the ledger books its differences.
        queries: queries made, by purpose.
        examples: examples in charged queries (a batch of 16 queried twice counts 32).
        tokens: non-padding tokens in charged queries; of a generated answer, those of its prompt.
        flops: estimated floating-point operations of charged queries.
        evaluated: examples scored for dev and test, never charged.
        seconds: wall clock by phase.
        phase: what the clock runs for; it stays where a block broke off.
    """

    budget: Budget
    computed: Callable[[], float] = _nothing
    queries: dict[str, int] = field(default_factory=lambda: {"train": 0, "calibration": 0, "noise": 0})
    examples: int = 0
    tokens: int = 0
    flops: float = 0.0
    evaluated: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    phase: Phase | None = None

    @property
    def charged(self) -> int:
        """Queries charged so far."""
        return sum(self.queries[purpose] for purpose in CHARGED)

    @property
    def spent(self) -> float:
        """Amount charged so far, in the unit of the budget."""
        charged = {"queries": self.charged, "tokens": self.tokens}
        return charged.get(self.budget.unit, sum(self.seconds[purpose] for purpose in CHARGED))

    def affords(self, queries: int, *, tokens: int) -> bool:
        """True if the next queries fit in the budget. Of seconds, which nobody knows beforehand, any must be left.

        Args:
            queries: how many come.
            tokens: non-padding tokens of all of them.
        """
        if self.budget.unit == "seconds":
            return self.spent < self.budget.limit
        return self.spent + (queries if self.budget.unit == "queries" else tokens) <= self.budget.limit

    @contextmanager
    def charge(self, purpose: Purpose, count: int, *, examples: int, tokens: int) -> Iterator[None]:
        """Book some queries, and the operations of the block, which makes them.

        Args:
            purpose: what they are for.
            count: how many.
            examples: that one of them reads.
            tokens: non-padding tokens that one of them reads.

        Raises:
            RuntimeError: they do not fit in a budget of queries or tokens. Seconds run out between steps only.
        """
        if purpose not in CHARGED:
            self.queries[purpose] += count
            yield
            return
        if self.budget.unit != "seconds" and not self.affords(count, tokens=count * tokens):
            raise RuntimeError(f"Query {self.charged + count} exceeds the budget of {self.budget}.")
        self.queries[purpose] += count
        self.examples += count * examples
        self.tokens += count * tokens
        before = self.computed()
        try:
            yield
        finally:
            self.flops += self.computed() - before

    @contextmanager
    def clock(self, phase: Phase) -> Iterator[None]:
        """Book the wall clock of a block to `phase`."""
        start, self.phase = time.perf_counter(), phase
        try:
            yield
            self.phase = None
        finally:
            self.book(phase, time.perf_counter() - start)

    def book(self, phase: Phase, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[phase] += seconds

    def state(self) -> dict[str, Any]:
        """State for `load`, ready for JSON."""
        return {
            "queries": dict(self.queries),
            "examples": self.examples,
            "tokens": self.tokens,
            "flops": self.flops,
            "evaluated": self.evaluated,
            "seconds": dict(self.seconds),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
        self.queries, self.seconds = dict(state["queries"]), dict(state["seconds"])
        self.examples, self.tokens = state["examples"], state["tokens"]
        self.flops, self.evaluated = state["flops"], state["evaluated"]

    def summary(self) -> dict[str, Any]:
        """The ledger as it enters result.json."""
        return {"budget": asdict(self.budget), **self.state()}
