"""Steps of one method on one task, each with its measurements; taken for the first time or again from the journal."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from zo_runner.methods.base import Method
from zo_runner.methods.queries import Closure
from zo_runner.models.batching import Batch
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.snr import loss_noise_variance
from zo_runner.training.budget import Ledger
from zo_runner.training.learning_rate import CurvatureReading, CurvatureSchedule, read_curvature
from zo_runner.training.memory import StepMemory
from zo_runner.training.noise import Noise
from zo_runner.training.objective import objective, re_evaluations
from zo_runner.training.outcome import StepRecord
from zo_runner.training.sampler import BatchOrder


@dataclass(frozen=True)
class PendingStep:
    """The next batch, within budget.

    Attributes:
        examples: of the batch.
        batches: the same as tensors.
        seconds: that it took to build them.
    """

    examples: Sequence[Encoded]
    batches: Sequence[Batch]
    seconds: float


@dataclass(kw_only=True)
class Stepper:
    """Steps of a method for as long as the budget pays.

    Args:
        method: the optimiser; its parameters belong to the evaluator's model.
        evaluator: loss of examples.
        train: training examples.
        order: indices of the training examples of each step.
        ledger: budget and counters.
        noise: added noise, and how evaluation noise is measured.
        rate: learning rate of every step; None for the method's own.
        memory: measures the memory of the second step or a later one, and before it that of a forward of the same
            batch, whose loss is not used; None to measure nothing.
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
        """The next batch; None if the budget cannot pay the step, of which nothing is booked then."""
        queries = self.method.queries_per_step + (self.method.queries_per_reading if self._curvature_is_due else 0)
        if not self.ledger.affords(queries, tokens=0):
            return None
        start = time.perf_counter()
        examples = [self.train[i] for i in self.order[self.method.steps]]
        batches = self.evaluator.batches(examples)
        if not self.ledger.affords(queries, tokens=queries * sum(batch.tokens for batch in batches)):
            return None
        return PendingStep(examples, batches, time.perf_counter() - start)

    def step(self, pending: PendingStep) -> StepRecord:
        """Take a step.

        Raises:
            Diverged: a loss is not finite.
            RuntimeError: the method made other queries than it declares.
        """
        sigma2, number = None, self.method.steps
        if self.method.has_directions and self.noise.due(number):
            where = (self.evaluator, self.ledger, self.noise, pending.examples, number)
            sigma2 = loss_noise_variance(re_evaluations(*where, "measure", number))
        with self._measure_memory(pending):
            reading = self._read_curvature(pending)
            before, seconds = self.ledger.charged, self.ledger.seconds["train"]
            self.ledger.book("train", pending.seconds)
            with self.ledger.clock("train"):
                if self.rate is not None:
                    self._set_rate(self.rate.lr)
                self.method.step(self._closure(pending, "train"))
        spent, declared = self.ledger.charged - before, self.method.queries_per_step
        if spent != declared or self.method.report is None:
            raise RuntimeError(f"{type(self.method).__name__} made {spent} queries in a step and declares {declared}.")
        return self._update_rate(
            StepRecord(self.method.report, self.ledger.seconds["train"] - seconds, reading, sigma2)
        )

    def replay_step(self, row: dict[str, Any]) -> StepRecord:
        """Take a step again from its line of the journal, without a query."""
        record = StepRecord.of_row(row, since=self.ledger.seconds["train"])
        if self.evaluator.perturbed is not None:
            self.evaluator.perturbed.follow(self.method.direction(record.report.step))
        self._set_rate(record.report.lr)
        with self.counting_state():
            self.method.replay(record.report)
        self.ledger.load(row["spent"])
        return self._update_rate(record)

    def counting_state(self) -> AbstractContextManager[None]:
        """Count tensors made in the block as state that a later step finds."""
        return nullcontext() if self.memory is None else self.memory.of_state()

    def state(self) -> dict[str, Any]:
        """State for `load`, ready for JSON; that of the method is its own."""
        return {
            "ledger": self.ledger.state(),
            "rate": self.rate and self.rate.state(),
            "memory": self.memory and self.memory.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
        self.ledger.load(state["ledger"])
        if self.rate is not None:
            self.rate.load(state["rate"])
        if self.memory is not None and state["memory"] is not None:
            self.memory.load(state["memory"])

    @property
    def _curvature_is_due(self) -> bool:
        return self.rate is not None and self.rate.due(self.method.steps)

    def _read_curvature(self, pending: PendingStep) -> CurvatureReading | None:
        if not self._curvature_is_due:
            return None
        with self.ledger.clock("calibration"), torch.no_grad():
            return read_curvature(self.method, self._closure(pending, "calibration"))

    def _update_rate(self, record: StepRecord) -> StepRecord:
        if self.rate is not None and record.reading is not None:
            self.rate.add(record.reading, record.report.loss)
        return record

    def _set_rate(self, lr: float) -> None:
        for group in self.method.param_groups:
            group["lr"] = lr

    def _measure_memory(self, pending: PendingStep) -> AbstractContextManager[None]:
        """Measure the memory of this step; of the first one too, since tensors that it makes may stay."""
        if self.memory is None or self.memory.inference is not None:
            return nullcontext()
        if self.method.steps > 0:
            with self.ledger.clock("eval"), torch.no_grad(), self.memory.of_inference():
                self.evaluator.loss(*pending.batches)
        return self.memory.of_step()

    def _closure(self, pending: PendingStep, purpose: Literal["train", "calibration"]) -> Closure:
        return objective(
            self.evaluator,
            pending.batches,
            self.ledger,
            self.noise,
            purpose,
            self.method.steps,
            purpose=purpose,
            needs_grad=self.method.needs_grad,
        )
