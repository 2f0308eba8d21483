"""The noise of an evaluation: added on purpose, and measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zo_runner.devices import moved
from zo_runner.methods.directions import Closure, Direction, ReadsPoints, reads_points
from zo_runner.methods.random import generator, normal
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.training.budget import Ledger


@dataclass(frozen=True)
class Noise:
    """How evaluation noise arises and how it is measured.

    Noise is measured by evaluating one batch again at one point, rows permuted and padding widened: the exact loss
    does not change, its rounding does.

    Args:
        std: standard deviation of Gaussian noise added to every evaluation on purpose, in loss units; 0 adds none.
        repeats: re-evaluations per measurement, M; 0 measures nothing.
        every: steps between measurements.
        seed: of the noise stream.
    """

    std: float = 0.0
    repeats: int = 8
    every: int = 100
    seed: int = 0

    def due(self, step: int) -> bool:
        """Whether the noise is measured before `step`."""
        return self.repeats > 0 and step % self.every == 0

    def variant(self, examples: Sequence[Encoded], step: int, repeat: int) -> tuple[list[Encoded], int]:
        """The same examples in another order, and extra columns of padding."""
        order = torch.randperm(len(examples), generator=generator(self.seed, "noise", "order", step, repeat))
        return [examples[i] for i in order.tolist()], repeat

    def disturb(self, loss: torch.Tensor, *path: str | int) -> torch.Tensor:
        """The loss with injected noise; every `path` has its own."""
        if self.std == 0.0:
            return loss
        return loss + self.std * moved(normal((), self.seed, "noise", *path), loss.device)

    def observed(self, loss: Closure, *path: str | int) -> Closure:
        """The loss as a query sees it: every evaluation has noise of its own, by `path` and its number."""
        return Observed(self, loss, path)

    def re_evaluations(
        self, evaluator: Evaluator, ledger: Ledger, examples: Sequence[Encoded], place: int, *path: str | int
    ) -> list[float]:
        """The loss of the same examples at the same point, over and over, booked as noise queries.

        Args:
            evaluator: turns examples into losses.
            ledger: where the queries and seconds are booked.
            examples: one batch.
            place: names the orders that the rows are put in.
            path: names the noise that is added.
        """
        losses = []
        with ledger.clock("noise"), torch.inference_mode():
            for repeat in range(self.repeats):
                batches = evaluator.batches(*self.variant(examples, place, repeat))
                closure = ledger.meter(evaluator.query(*batches), purpose="noise")
                losses.append(float(self.disturb(closure(), *path, repeat)))
        return losses


@dataclass
class Observed:
    """A loss with noise of its own at every evaluation.

    Attributes:
        noise: that is added.
        loss: without it.
        path: names the noise, with the number of the evaluation.
        count: evaluations so far.
    """

    noise: Noise
    loss: Closure
    path: tuple[str | int, ...]
    count: int = 0

    def __call__(self) -> torch.Tensor:
        """The loss at the parameters."""
        return self._disturbed(self.loss())

    def reads(self, directions: Sequence[Direction]) -> bool:
        """As the loss's, where it has such."""
        return reads_points(self.loss, directions)

    def at(self, directions: Sequence[Direction], offsets: Sequence[float]) -> torch.Tensor:
        """The losses at several points, each with noise of its own."""
        assert isinstance(self.loss, ReadsPoints)
        losses = self.loss.at(directions, offsets)
        return torch.stack([self._disturbed(loss) for loss in losses]) if self.noise.std else losses

    def _disturbed(self, loss: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.noise.disturb(loss, *self.path, self.count - 1)
