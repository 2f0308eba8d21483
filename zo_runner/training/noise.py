"""The noise of an evaluation: added on purpose, and measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zo_runner.devices import moved
from zo_runner.methods.random import generator, normal
from zo_runner.models.encoding import Encoded


@dataclass(frozen=True)
class Noise:
    """Evaluation noise: added on purpose, and measured.

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
        """True if the noise is measured before `step`."""
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
