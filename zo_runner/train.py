"""The training loop. It knows methods, losses and the ledger; nothing of Hydra, PEFT or files."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from zo_runner.batches import Batch
from zo_runner.budget import Ledger
from zo_runner.directions import Closure, finite
from zo_runner.encoding import Encoded
from zo_runner.errors import Diverged
from zo_runner.evaluation import Evaluator, Score
from zo_runner.guard import Guard
from zo_runner.memory import StepMemory
from zo_runner.methods.base import Method, StepReport, ZerothOrder
from zo_runner.noise import Noise
from zo_runner.order import BatchOrder
from zo_runner.rate import FollowingRate
from zo_runner.snr import AtomMeters, SignalMeter


class Observer(Protocol):
    """Who watches a run: files, tracker, progress bar."""

    def stepped(self, report: StepReport, readings: dict[str, float]) -> None:
        """After every step."""

    def logged(self, event: dict[str, Any]) -> None:
        """One event of metrics.jsonl."""

    def improved(self) -> None:
        """The parameters are the best on dev so far."""


@dataclass(frozen=True)
class Checkpoint:
    """A dev score and where it was reached."""

    step: int
    queries: int
    score: Score


@dataclass
class Coverage:
    """How far the atoms of the first module have been queried.

    Attributes:
        atoms: how many there are.
        visited: how many of them have been queried.
        queries: charged queries after which all of them had been; None before that.
    """

    atoms: int
    visited: int = 0
    queries: int | None = None


@dataclass
class Outcome:
    """What training led to.

    Attributes:
        zero_shot: before the first step.
        best: best dev score after at least one step (the task's first metric, then loss); None if none was reached.
        last: dev score of the last evaluation.
        status: "done" or "diverged".
        error: why it diverged.
        signal: last readings of the signal meter.
        coverage: of the atoms, None for methods that query all at once.
        train_loss: mean over the last logging interval.
        step_seconds: wall clock of every step.
    """

    zero_shot: Checkpoint | None = None
    best: Checkpoint | None = None
    last: Checkpoint | None = None
    status: Literal["done", "diverged"] = "done"
    error: str | None = None
    signal: dict[str, float] = field(default_factory=dict)
    coverage: Coverage | None = None
    train_loss: float = math.nan
    step_seconds: list[float] = field(default_factory=list)

    @property
    def step_median(self) -> float:
        """Median seconds per step, NaN without a step."""
        return statistics.median(self.step_seconds) if self.step_seconds else math.nan


@dataclass(frozen=True)
class Coming:
    """A step that the budget affords and that has not begun.

    Attributes:
        examples: of its batch.
        batches: the same as tensors.
        tokens: non-padding tokens that one query reads.
        seconds: what it took to build them.
    """

    examples: Sequence[Encoded]
    batches: Sequence[Batch]
    tokens: int
    seconds: float


@dataclass
class Trainer:
    """One run of one method on one task.

    Args:
        method: the optimiser; its parameters belong to the evaluator's model.
        evaluator: turns examples into losses.
        train: training examples.
        dev: selection examples.
        order: which training examples each step sees.
        ledger: budget and counters.
        noise: how evaluation noise arises and is measured.
        eval_every: queries between dev evaluations.
        log_every: steps between train events.
        observer: who is told.
        rate: chooses the learning rate of every step; None for the method's own.
        guard: stops a run that is past saving; by default only where a parameter is no number any more.
        memory: measures what the second step takes, and before it a forward of its batch, whose loss nobody sees.
    """

    method: Method
    evaluator: Evaluator
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    order: BatchOrder
    ledger: Ledger
    noise: Noise
    eval_every: int
    log_every: int
    observer: Observer
    rate: FollowingRate | None = None
    memory: StepMemory | None = None
    guard: Guard = field(default_factory=Guard)

    def run(self) -> Outcome:
        """Train until the budget cannot pay another step, or the guard or a loss that is no number ends the run."""
        outcome = Outcome()
        try:
            self._run(outcome)
        except Diverged as error:
            outcome.status = "diverged"
            outcome.error = f"{error} at step {self.method.steps} (query {self.ledger.charged})"
        return outcome

    def _run(self, outcome: Outcome) -> None:
        # Slopes and their noise: a method that differentiates the loss measures neither.
        meter = None
        if isinstance(self.method, ZerothOrder):
            meter = SignalMeter(self.method.eps, two_sided=self.method.two_sided)
        atoms = None
        if meter is not None and self.method.num_atoms is not None:
            atoms, outcome.coverage = AtomMeters(self.method.num_atoms, meter), Coverage(self.method.num_atoms)
        losses: list[float] = []
        outcome.zero_shot = outcome.last = self._evaluate()
        next_eval = (self.ledger.charged // self.eval_every + 1) * self.eval_every
        coming = self._next()
        while coming is not None:
            step = self.method.steps
            if meter is not None and self.noise.due(step):
                where = (self.evaluator, self.ledger, coming.examples, step)
                meter.add_noise(self.noise.re_evaluations(*where, "measure", step))
            with self._watched(coming):
                report = self._step(coming, outcome)
            losses.append(report.loss)
            if meter is not None:
                for slope in report.slopes:
                    meter.add_slope(slope)
                outcome.signal = meter.read()
            self._visit(report, atoms, outcome.coverage)
            self.observer.stepped(report, outcome.signal)
            self.guard.after(report)
            coming = self._next()
            if step % self.log_every == 0 or coming is None:
                outcome.train_loss = statistics.fmean(losses)
                self._log_train(report, outcome)
                losses.clear()
            if self.ledger.charged >= next_eval:
                next_eval = (self.ledger.charged // self.eval_every + 1) * self.eval_every
                self._consider(outcome, atoms)
        if outcome.last is None or outcome.last.step != self.method.steps:
            self._consider(outcome, atoms)

    def _next(self) -> Coming | None:
        """The next step, or None if the budget cannot pay it: then nothing of it is booked."""
        queries = self.method.queries_per_step + self._reads_curvature
        if not self.ledger.affords(queries, tokens=0):
            return None
        start = time.perf_counter()
        examples = [self.train[i] for i in self.order[self.method.steps]]
        batches = self.evaluator.batches(examples)
        tokens = sum(batch.tokens for batch in batches)
        if not self.ledger.affords(queries, tokens=queries * tokens):
            return None
        return Coming(examples, batches, tokens, time.perf_counter() - start)

    def _watched(self, coming: Coming) -> AbstractContextManager[None]:
        if self.memory is None or self.method.steps > 1:
            return nullcontext()
        if self.method.steps == 1:
            with self.ledger.clock("eval"), torch.no_grad(), self.memory.of_inference():
                self.evaluator.loss(*coming.batches)
        return self.memory.of_step()

    @property
    def _reads_curvature(self) -> bool:
        return self.rate is not None and self.rate.due(self.method.steps)

    def _step(self, coming: Coming, outcome: Outcome) -> StepReport:
        middle = self._middle(coming)
        start = time.perf_counter()
        self.ledger.book("train", coming.seconds)
        with self.ledger.clock("train"):
            if self.rate is not None:
                for group in self.method.param_groups:
                    group["lr"] = self.rate.lr
            before = self.ledger.charged
            self.method.step(self._closure(coming, "train"))
        outcome.step_seconds.append(coming.seconds + time.perf_counter() - start)
        if self.rate is not None and middle is not None and self.method.report is not None:
            self.rate.read(middle, self.method.report.loss)
        spent = self.ledger.charged - before
        if spent != self.method.queries_per_step or self.method.report is None:
            declared = self.method.queries_per_step
            raise RuntimeError(f"{type(self.method).__name__} made {spent} queries in a step and declares {declared}.")
        return self.method.report

    def _middle(self, coming: Coming) -> float | None:
        """The loss at theta on the coming batch, where this step reads the curvature; one query of calibration."""
        if not self._reads_curvature:
            return None
        with self.ledger.clock("calibration"), torch.no_grad():
            return finite(self._closure(coming, "calibration")())

    def _closure(self, coming: Coming, purpose: Literal["train", "calibration"]) -> Closure:
        loss: Closure = self.evaluator.query(*coming.batches)
        if not self.method.needs_grad:  # noise is added to what is queried; a gradient would not feel it
            loss = self.noise.observed(loss, purpose, self.method.steps)
        return self.ledger.meter(
            loss,
            purpose=purpose,
            examples=len(coming.examples),
            tokens=coming.tokens,
            needs_grad=self.method.needs_grad,
        )

    def _visit(self, report: StepReport, atoms: AtomMeters | None, coverage: Coverage | None) -> None:
        if report.atom is None or atoms is None or coverage is None:
            return
        for slope in report.slopes:
            atoms.add_slope(report.atom, slope)
        coverage.visited = atoms.visited
        if coverage.queries is None and coverage.visited == coverage.atoms:
            coverage.queries = self.ledger.charged

    def _evaluate(self, readings: Mapping[str, Any] | None = None) -> Checkpoint:
        self.guard.parameters(self.method)
        with self.ledger.clock("eval"):
            score = self.evaluator.score(self.dev)
            self.ledger.evaluated += len(self.dev)
        if not math.isfinite(score.loss):
            raise Diverged(f"the dev loss is {score.loss}")
        point = Checkpoint(self.method.steps, self.ledger.charged, score)
        dev = {f"dev/{name}": v for name, v in score.as_dict().items()}
        self.observer.logged({**self._position(), **dev, **(readings or {})})
        return point

    def _consider(self, outcome: Outcome, atoms: AtomMeters | None) -> None:
        outcome.last = self._evaluate(None if atoms is None else atoms.read())
        if outcome.best is None or outcome.last.score.order > outcome.best.score.order:
            outcome.best = outcome.last
            self.observer.improved()

    def _log_train(self, report: StepReport, outcome: Outcome) -> None:
        atom = {} if report.atom is None else {"zo/atom": report.atom}
        slope = {"zo/slope": report.slopes[-1]} if report.slopes else {}
        event = {**self._position(), "lr": report.lr, "train/loss": outcome.train_loss}
        self.observer.logged({**event, **slope, **outcome.signal, **atom})

    def _position(self) -> dict[str, Any]:
        seconds = sum(self.ledger.seconds.values())
        return {"step": self.method.steps, "queries": self.ledger.charged, "seconds": round(seconds, 3)}
