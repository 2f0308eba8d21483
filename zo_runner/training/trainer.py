"""The training loop. It knows methods, losses and the ledger; nothing of Hydra, PEFT or files."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from zo_runner.errors import Diverged
from zo_runner.methods.base import Method
from zo_runner.models.encoding import Encoded
from zo_runner.training.budget import Ledger
from zo_runner.training.checkpoint import ResumeState
from zo_runner.training.divergence import Guard
from zo_runner.training.interrupts import uninterrupted
from zo_runner.training.meters import Meters
from zo_runner.training.outcome import DevScore, StepRecord, TrainingOutcome
from zo_runner.training.step import Stepper


class Observer(Protocol):
    """Callbacks of a run: files, tracker, progress bar."""

    def on_step(self, record: StepRecord, readings: dict[str, float]) -> None:
        """Record a step."""

    def on_log(self, event: dict[str, Any]) -> None:
        """Record one event of metrics.jsonl."""

    def on_best(self) -> None:
        """Save the parameters, the best on dev so far."""

    def on_checkpoint(self, method: Method, state: dict[str, Any]) -> None:
        """Save a checkpoint."""


@dataclass(kw_only=True)
class Trainer:
    """One run of one method on one task.

    Args:
        stepper: takes the steps.
        dev: selection examples.
        eval_every: queries between dev evaluations.
        log_every: steps between train events.
        observer: callbacks.
        checkpoint_every: queries between checkpoints, beside those after dev evaluations; None for no others.
        guard: ends a run that diverges; by default only where a parameter is not finite.
        outcome: result so far, filled in as the run goes on.
    """

    stepper: Stepper
    dev: Sequence[Encoded]
    eval_every: int
    log_every: int
    observer: Observer
    checkpoint_every: int | None = None
    guard: Guard = field(default_factory=Guard)
    outcome: TrainingOutcome = field(default_factory=TrainingOutcome)

    def __post_init__(self) -> None:
        self._meters = Meters(self.method)
        self.outcome.coverage = self._meters.coverage
        self._losses: list[float] = []  # since the last train event
        self._next_eval = self._next_checkpoint = 0.0  # in queries
        self._under_way = False

    @property
    def method(self) -> Method:
        """The optimiser."""
        return self.stepper.method

    @property
    def ledger(self) -> Ledger:
        """Budget and counters."""
        return self.stepper.ledger

    def fit(self, resume: ResumeState | None = None) -> TrainingOutcome:
        """Train until the budget cannot pay another step, or until the run diverges.

        Args:
            resume: state to continue from; None to begin.
        """
        try:
            self._begin() if resume is None else self._resume(resume)
            self._under_way = True
            self._loop()
        except Diverged as error:
            self.outcome.status = "diverged"
            self.outcome.error = f"{error} at step {self.method.steps} (query {self.ledger.charged})"
        except KeyboardInterrupt:
            # Not where atoms are folded: the folded weights round by the steps since the last checkpoint, and a new one
            # would change the last digits of what follows. The journal brings the run back there just as well.
            perturbed = self.stepper.evaluator.perturbed
            if self._under_way and not (perturbed and perturbed.fold):
                self._save()
            raise
        return self.outcome

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on beside the method's own state, ready for JSON."""
        return {
            **self.stepper.state(),
            "outcome": self.outcome.state(),
            "meters": self._meters.state(),
            "guard": self.guard.state(),
            "losses": self._losses,
            "next_eval": self._next_eval,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.stepper.load(state)
        self.outcome.load(state["outcome"])
        self._meters.load(state["meters"])
        self.outcome.coverage = self._meters.coverage
        self.guard.load(state["guard"])
        self._losses, self._next_eval = list(state["losses"]), state["next_eval"]
        self._next_checkpoint = self._multiple_after(self.checkpoint_every)

    def _begin(self) -> None:
        self._evaluate()
        self._keep()

    def _resume(self, resume: ResumeState) -> None:
        with self.stepper.counting_state():
            resume.restore(self.method)
        self._load(resume.state["trainer"])
        self._evaluate_if_due()
        for i, row in enumerate(resume.rows, start=1):
            latest = i == len(resume.rows)
            with uninterrupted():
                record = self.stepper.replay_step(row)
                self._count(record)
                self.guard.after(record.report)
                self._log(record, last=latest and self.stepper.next_step() is None)
            if self._evaluate_if_due() or (latest and self._checkpoint_is_due):
                self._keep()

    def _loop(self) -> None:
        pending = self.stepper.next_step()
        while pending is not None:
            with uninterrupted():
                record = self.stepper.step(pending)
                self._count(record)
                self.observer.on_step(record, self.outcome.signal)
                self.guard.after(record.report)
                pending = self.stepper.next_step()
                self._log(record, last=pending is None)
            if self._evaluate_if_due() or self._checkpoint_is_due:
                self._keep()
        if self.outcome.last is None or self.outcome.last.step != self.method.steps:
            self._evaluate()
            self._keep()

    def _count(self, record: StepRecord) -> None:
        self.outcome.step_seconds.append(record.seconds)
        self._losses.append(record.report.loss)
        self._meters.add(record.report, record.sigma2, self.ledger.charged)
        self.outcome.signal = self._meters.read()

    def _log(self, record: StepRecord, *, last: bool) -> None:
        report = record.report
        if report.step % self.log_every and not last:
            return
        self.outcome.train_loss = statistics.fmean(self._losses)
        self._losses.clear()
        atom = {} if report.atom is None else {"zo/atom": report.atom}
        slope = {"zo/slope": report.slopes[-1]} if report.slopes else {}
        event = {**self._position(), "lr": report.lr, "train/loss": self.outcome.train_loss}
        self.observer.on_log({**event, **slope, **self.outcome.signal, **atom})

    def _evaluate_if_due(self) -> bool:
        due = self.ledger.charged >= self._next_eval
        if due:
            self._evaluate()
        return due

    def _evaluate(self) -> None:
        """Score dev. An interrupt before the score is known leaves no trace of it."""
        self.guard.parameters(self.method)
        with self.ledger.clock("eval"):
            score = self.stepper.evaluator.score(self.dev)
        with uninterrupted():
            self.ledger.evaluated += len(self.dev)
            if not math.isfinite(score.loss):
                raise Diverged(f"the dev loss is {score.loss}")
            found, outcome = DevScore(self.method.steps, self.ledger.charged, score), self.outcome
            dev = {f"dev/{name}": v for name, v in score.as_dict().items()}
            self.observer.on_log(
                {**self._position(), **dev, **(self._meters.read_atoms() if outcome.zero_shot else {})}
            )
            if outcome.zero_shot is None:
                outcome.zero_shot = found
            elif outcome.best is None or score.order > outcome.best.score.order:
                self.observer.on_best()
                outcome.best = found
            outcome.last = found
            self._next_eval = self._multiple_after(self.eval_every)

    @property
    def _checkpoint_is_due(self) -> bool:
        return self.ledger.charged >= self._next_checkpoint

    def _keep(self) -> None:
        self.guard.parameters(self.method)
        self._save()

    def _save(self) -> None:
        if self.stepper.evaluator.perturbed is not None:
            self.stepper.evaluator.perturbed.renew()
        self._next_checkpoint = self._multiple_after(self.checkpoint_every)
        self.observer.on_checkpoint(self.method, self.state())

    def _multiple_after(self, every: int | None) -> float:
        """The next multiple of `every` queries."""
        return math.inf if every is None else (self.ledger.charged // every + 1) * every

    def _position(self) -> dict[str, Any]:
        seconds = sum(self.ledger.seconds.values())
        return {"step": self.method.steps, "queries": self.ledger.charged, "seconds": round(seconds, 3)}
