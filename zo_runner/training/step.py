"""Steps of one method on one task, each with what is measured before it; taken for the first time or once more."""

import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from zo_runner.methods.base import Method
from zo_runner.methods.queries import Closure, finite, losses_along
from zo_runner.methods.zeroth_order import ZerothOrder
from zo_runner.models.batching import Batch
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.snr import loss_noise_variance
from zo_runner.training.budget import Ledger
from zo_runner.training.learning_rate import CurvatureSchedule
from zo_runner.training.memory import StepMemory
from zo_runner.training.noise import Noise
from zo_runner.training.objective import objective, re_evaluations
from zo_runner.training.outcome import StepRecord
from zo_runner.training.sampler import BatchOrder


@dataclass(frozen=True)
class PendingStep:
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


@dataclass(kw_only=True)
class Stepper:
    """Takes steps while the budget pays for them.

    Args:
        method: the optimiser; its parameters belong to the evaluator's model.
        evaluator: turns examples into losses.
        train: training examples.
        order: which training examples each step sees.
        ledger: budget and counters.
        noise: how evaluation noise arises and is measured.
        rate: chooses the learning rate of every step; None for the method's own.
        memory: measures what a step takes, the second or a later one, and before it a forward of its batch, whose loss
            nobody sees.
    """

    method: Method
    evaluator: Evaluator
    train: Sequence[Encoded]
    order: BatchOrder
    ledger: Ledger
    noise: Noise
    rate: CurvatureSchedule | None = None
    memory: StepMemory | None = None

    def next_step(self) -> PendingStep | None:
        """The next step, or None if the budget cannot pay it: then nothing of it is booked."""
        queries = self.method.queries_per_step
        if self._reads_curvature and isinstance(self.method, ZerothOrder):
            queries += self.method.queries_per_reading
        if not self.ledger.affords(queries, tokens=0):
            return None
        start = time.perf_counter()
        examples = [self.train[i] for i in self.order[self.method.steps]]
        batches = self.evaluator.batches(examples)
        tokens = sum(batch.tokens for batch in batches)
        if not self.ledger.affords(queries, tokens=queries * tokens):
            return None
        return PendingStep(examples, batches, tokens, time.perf_counter() - start)

    def step(self, coming: PendingStep) -> StepRecord:
        """Take a step.

        Raises:
            Diverged: a loss is not finite.
            RuntimeError: the method made other queries than it declares.
        """
        sigma2, step = None, self.method.steps
        if isinstance(self.method, ZerothOrder) and self.noise.due(step):
            where = (self.evaluator, self.ledger, self.noise, coming.examples, step)
            sigma2 = loss_noise_variance(re_evaluations(*where, "measure", step))
        with self._measure_memory(coming):
            center_loss, flipped_mean = self._read_curvature(coming)
            before, seconds = self.ledger.charged, self.ledger.seconds["train"]
            self.ledger.book("train", coming.seconds)
            with self.ledger.clock("train"):
                if self.rate is not None:
                    self._set_rate(self.rate.lr)
                self.method.step(self._closure(coming, "train"))
        spent = self.ledger.charged - before
        if spent != self.method.queries_per_step or self.method.report is None:
            declared = self.method.queries_per_step
            raise RuntimeError(f"{type(self.method).__name__} made {spent} queries in a step and declares {declared}.")
        return self._update_rate(
            StepRecord(self.method.report, self.ledger.seconds["train"] - seconds, center_loss, flipped_mean, sigma2)
        )

    def replay_step(self, row: dict[str, Any]) -> StepRecord:
        """Take a step from the journal, without a query.

        Args:
            row: its line.
        """
        assert isinstance(self.method, ZerothOrder)
        taken = StepRecord.of_row(row, since=self.ledger.seconds["train"])
        if self.evaluator.perturbed is not None:
            self.evaluator.perturbed.follow(self.method.direction(taken.report.step))
        self._set_rate(taken.report.lr)
        with self._counting_state():
            self.method.replay(taken.report)
        self.ledger.load(row["spent"])
        return self._update_rate(taken)

    def _counting_state(self) -> AbstractContextManager[None]:
        """What the block makes counts as state that a later step finds."""
        return nullcontext() if self.memory is None else self.memory.of_state()

    def _update_rate(self, taken: StepRecord) -> StepRecord:
        if self.rate is not None and taken.center_loss is not None:
            ends = [loss for loss in (taken.report.loss, taken.flipped_mean) if loss is not None]
            self.rate.read(taken.center_loss, statistics.fmean(ends))
        return taken

    def _set_rate(self, lr: float) -> None:
        for group in self.method.param_groups:
            group["lr"] = lr

    def _measure_memory(self, coming: PendingStep) -> AbstractContextManager[None]:
        """Measures the memory of this step; of the first one too, since what it makes may stay."""
        if self.memory is None or self.memory.inference is not None:
            return nullcontext()
        if self.method.steps > 0:
            with self.ledger.clock("eval"), torch.no_grad(), self.memory.of_inference():
                self.evaluator.loss(*coming.batches)
        return self.memory.of_step()

    @property
    def _reads_curvature(self) -> bool:
        return self.rate is not None and self.rate.due(self.method.steps)

    def _read_curvature(self, coming: PendingStep) -> tuple[float | None, float | None]:
        """`center_loss` and `flipped_mean` of the step, where it reads the curvature."""
        if not self._reads_curvature:
            return None, None
        assert isinstance(self.method, ZerothOrder)
        with self.ledger.clock("calibration"), torch.no_grad():
            closure = self._closure(coming, "calibration")
            if not self.method.has_halves:
                return finite(closure()), None
            flipped_mean, eps = self.method.flipped_in_A(self.method.steps), self.method.eps
            plus, center_loss, minus = losses_along(closure, flipped_mean, (eps, 0.0, -eps))
            return center_loss, (plus + minus) / 2

    def _closure(self, coming: PendingStep, purpose: Literal["train", "calibration"]) -> Closure:
        return objective(
            self.evaluator,
            coming.batches,
            self.ledger,
            self.noise,
            purpose,
            self.method.steps,
            purpose=purpose,
            needs_grad=self.method.needs_grad,
        )
