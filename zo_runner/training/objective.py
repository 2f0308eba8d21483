"""The objective of a step: the loss of its batch, with noise added on purpose, counted by the ledger.

    Objective -> NoisyObjective -> MeteredObjective, chained by `objective`

Each can be called, for the loss at the parameters, and is a `BatchedObjective`, for losses at several points.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from zo_runner.methods.directions import Direction
from zo_runner.methods.first_order import QUERIES_PER_GRADIENT
from zo_runner.methods.queries import BatchedObjective, Closure, reads_at_once
from zo_runner.models.batching import Batch, PromptBatch
from zo_runner.models.encoding import Encoded
from zo_runner.models.loss import TaskLoss
from zo_runner.training.budget import Ledger, Purpose
from zo_runner.training.noise import Noise


class Objective:
    """The loss of some batches; each point is one query.

    Args:
        loss: of the task.
        batches: of one step.
    """

    def __init__(self, loss: TaskLoss, batches: Sequence[Batch]) -> None:
        self.loss, self.batches = loss, batches

    def __call__(self) -> torch.Tensor:
        """The loss at the parameters, 0-d float32."""
        return self.loss.loss(*self.batches)

    def supports(self, directions: Sequence[Direction]) -> bool:
        """True if points on these directions are read without writing to the parameters."""
        return self._at_once(directions, 2) > 0

    def losses_at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """The losses at theta + t u, [D F] float32, for each u of `directions` and each t of `offsets` in turn."""
        at_once, losses = self._at_once(directions, len(offsets)), []
        stride = at_once // len(offsets)
        if stride:
            forwards = [(directions[i : i + stride], offsets) for i in range(0, len(directions), stride)]
        else:
            forwards = [([u], [t]) for u in directions for t in offsets]
        assert self.loss.perturbed is not None
        for some, at in forwards:
            with torch.no_grad(), self.loss.perturbed.at(some, at):
                losses.append(self.loss.losses(self.batches, points=len(some) * len(at)))
        return torch.cat(losses)

    def _at_once(self, directions: Sequence[Direction], offsets: int) -> int:
        perturbed = self.loss.perturbed
        if perturbed is None or any(isinstance(batch, PromptBatch) for batch in self.batches):
            return 0
        read = [batch.ids_RL.numel() for batch in self.batches if not isinstance(batch, PromptBatch)]
        return perturbed.reads(directions, offsets, sum(read))


@dataclass
class NoisyObjective:
    """A loss with noise of its own at every evaluation.

    Attributes:
        noise: that is added.
        loss: without it.
        path: names the noise, with the number of the evaluation.
        count: number of the next evaluation.
    """

    noise: Noise
    loss: Closure
    path: tuple[str | int, ...]
    count: int = 0

    def __call__(self) -> torch.Tensor:
        """The loss at the parameters."""
        return self._disturbed(self.loss())

    def supports(self, directions: Sequence[Direction]) -> bool:
        """As the loss's, where it has such."""
        return reads_at_once(self.loss, directions)

    def losses_at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """The losses at several points, each with noise of its own."""
        assert isinstance(self.loss, BatchedObjective)
        losses = self.loss.losses_at(directions, offsets)
        return torch.stack([self._disturbed(loss) for loss in losses]) if self.noise.std else losses

    def _disturbed(self, loss: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.noise.disturb(loss, *self.path, self.count - 1)


@dataclass(frozen=True)
class MeteredObjective:
    """A loss whose queries are booked. A method cannot spend without it, nor differentiate what it did not pay for.

    Attributes:
        ledger: where queries are booked.
        loss: of one batch.
        purpose: of the queries.
        examples: in the batch.
        tokens: non-padding tokens in the batch.
        needs_grad: whether the loss comes with its graph, for three queries; else none is built.
    """

    ledger: Ledger
    loss: Closure
    purpose: Purpose = "train"
    examples: int = 0
    tokens: int = 0
    needs_grad: bool = False

    def __call__(self) -> torch.Tensor:
        """The loss at the parameters."""
        count = QUERIES_PER_GRADIENT if self.needs_grad else 1
        with self._booked(count), torch.set_grad_enabled(self.needs_grad):
            return self.loss()

    def supports(self, directions: Sequence[Direction]) -> bool:
        """As the loss's, where it has such."""
        return reads_at_once(self.loss, directions)

    def losses_at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """The losses at several points; as many queries."""
        with self._booked(len(directions) * len(offsets)):
            assert isinstance(self.loss, BatchedObjective)
            return self.loss.losses_at(directions, offsets)

    def _booked(self, count: int) -> AbstractContextManager[None]:
        return self.ledger.charge(self.purpose, count, examples=self.examples, tokens=self.tokens)


def objective(
    loss: TaskLoss,
    batches: Sequence[Batch],
    ledger: Ledger,
    noise: Noise,
    *path: str | int,
    purpose: Purpose = "train",
    needs_grad: bool = False,
    first: int = 0,
) -> MeteredObjective:
    """The loss of some batches, noisy and metered.

    Args:
        loss: of the task.
        batches: of one query.
        ledger: where queries are booked.
        noise: that is added to what is queried. A gradient would not feel it, and gets none.
        path: names the noise.
        purpose: of the queries.
        needs_grad: whether the loss comes with its graph.
        first: number of the first evaluation under that name.
    """
    plain: Closure = Objective(loss, batches)
    if not needs_grad:
        plain = NoisyObjective(noise, plain, path, first)
    examples, tokens = sum(map(len, batches)), sum(batch.tokens for batch in batches)
    return MeteredObjective(ledger, plain, purpose, examples, tokens, needs_grad)


def re_evaluations(
    loss: TaskLoss, ledger: Ledger, noise: Noise, examples: Sequence[Encoded], place: int, *path: str | int
) -> list[float]:
    """Losses of the same examples at the same point, over and over, booked as noise queries.

    Args:
        loss: of the task.
        ledger: where the queries and seconds are booked.
        noise: that is added, and says how often the loss is evaluated.
        examples: one batch.
        place: names the orders that the rows are put in.
        path: names the noise.
    """
    losses = []
    with ledger.clock("noise"), torch.inference_mode():
        for repeat in range(noise.repeats):
            batches = loss.batches(*noise.variant(examples, place, repeat))
            losses.append(float(objective(loss, batches, ledger, noise, *path, purpose="noise", first=repeat)()))
    return losses
