"""Step records, dev scores and outcome of a run."""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from zo_runner.methods.base import StepReport
from zo_runner.models.evaluator import Score
from zo_runner.training.learning_rate import CurvatureReading
from zo_runner.training.meters import Coverage

# Steps that the median duration is taken of: a run of days keeps no list of them all.
TIMED_STEPS = 1000


@dataclass(frozen=True)
class StepRecord:
    """A step, and measurements beside it.

    Attributes:
        report: of the method.
        seconds: that it took, without what was measured besides.
        reading: of the curvature before it, where the rate follows that.
        sigma2: variance of the loss's evaluation noise, where it was estimated before the step.
    """

    report: StepReport
    seconds: float
    reading: CurvatureReading | None = None
    sigma2: float | None = None

    def as_row(self) -> dict[str, Any]:
        """Line of the journal, without what was not measured."""
        measured = {**vars(self.report), **(vars(self.reading) if self.reading else {}), "sigma2": self.sigma2}
        return {key: value for key, value in measured.items() if value is not None}

    @classmethod
    def of_row(cls, row: dict[str, Any], since: float = 0.0) -> "StepRecord":
        """The same from a line of the journal.

        Args:
            row: the line.
            since: seconds of training that the ledger had before.
        """
        step, loss, slopes, lr = row["step"], row["loss"], tuple(row["slopes"]), row["lr"]
        report = StepReport(step, loss, slopes, lr, row.get("atom"), row.get("curvature"))
        seconds = row["spent"]["seconds"]["train"] - since
        reading = CurvatureReading(row["center_loss"], row.get("flipped_mean")) if "center_loss" in row else None
        return cls(report, seconds, reading, row.get("sigma2"))


@dataclass(frozen=True)
class DevScore:
    """A score on dev and where it was reached."""

    step: int
    queries: int
    score: Score

    def as_dict(self) -> dict[str, Any]:
        """As result.json has it."""
        return {"step": self.step, "queries": self.queries, **self.score.as_dict()}

    @classmethod
    def of(cls, known: dict[str, Any] | None) -> "DevScore | None":
        """The inverse of `as_dict`."""
        if known is None:
            return None
        metrics = {key: value for key, value in known.items() if key not in ("step", "queries", "loss")}
        return cls(known["step"], known["queries"], Score(known["loss"], metrics))


@dataclass
class TrainingOutcome:
    """Result of training.

    Attributes:
        zero_shot: before the first step.
        best: best dev score after at least one step (the task's first metric, then loss); None if none was reached.
        last: dev score of the last evaluation.
        status: "done" or "diverged".
        error: reason of a divergence.
        signal: last readings of the signal meter.
        coverage: of the atoms, None for methods that query all at once.
        train_loss: mean over the last logging interval.
        step_seconds: wall clock of the latest steps.
    """

    zero_shot: DevScore | None = None
    best: DevScore | None = None
    last: DevScore | None = None
    status: Literal["done", "diverged"] = "done"
    error: str | None = None
    signal: dict[str, float] = field(default_factory=dict)
    coverage: Coverage | None = None
    train_loss: float = math.nan
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED_STEPS))

    @property
    def step_median(self) -> float:
        """Median seconds per step, NaN without a step."""
        return statistics.median(self.step_seconds) if self.step_seconds else math.nan

    def state(self) -> dict[str, Any]:
        """State for `load`, ready for JSON; status and error belong to the end of a run, coverage to its meters."""
        return {
            **{name: point and point.as_dict() for name, point in self.dev().items()},
            "signal": self.signal,
            "train_loss": self.train_loss,
            "step_seconds": list(self.step_seconds),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.zero_shot, self.best, self.last = (DevScore.of(state[name]) for name in self.dev())
        self.signal, self.train_loss = state["signal"], state["train_loss"]
        self.step_seconds.extend(state["step_seconds"])

    def dev(self) -> dict[str, DevScore | None]:
        """The scores by name."""
        return {"zero_shot": self.zero_shot, "best": self.best, "last": self.last}
