"""The queries of a calibration: directions and batches of their own, at the parameters as they are."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from zo_runner.errors import Diverged
from zo_runner.methods.base import Method
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.snr import loss_noise_variance
from zo_runner.training.budget import Ledger
from zo_runner.training.calibration import Probe, ProbeQuery, probe
from zo_runner.training.noise import Noise
from zo_runner.training.objective import objective, re_evaluations
from zo_runner.training.sampler import BatchOrder

# Batches whose noise is measured, and how often, where the run does not say: a variance of few values is rough.
NOISE_BATCHES, NOISE_REPEATS = 4, 8


@dataclass
class CalibrationQueries:
    """Probes the parameters as they are, on batches of their own.

    Args:
        method: whose directions are probed; it takes no step.
        evaluator: turns examples into losses.
        examples: training examples.
        order: which of them each direction is probed on.
        ledger: what may be spent.
        noise: how evaluation noise is added and measured.
        probes: directions per radius.
        reserve: queries that must be left for training.
        reserve_tokens: non-padding tokens of these.
    """

    method: Method
    evaluator: Evaluator
    examples: Sequence[Encoded]
    order: BatchOrder
    ledger: Ledger
    noise: Noise
    probes: int
    reserve: int
    reserve_tokens: int

    @cached_property
    def sigma2(self) -> float:
        """Variance of the loss noise; it is needed also where the run itself measures none."""
        noise = self.noise if self.noise.repeats else replace(self.noise, repeats=NOISE_REPEATS)
        return statistics.fmean(
            loss_noise_variance(
                re_evaluations(self.evaluator, self.ledger, noise, self._batch(i), i, "calibration", "noise", i)
            )
            for i in range(NOISE_BATCHES)
        )

    @cached_property
    def tokens(self) -> int:
        """Non-padding tokens that one query on every batch reads."""
        with self.ledger.clock("calibration"):
            return sum(batch.tokens for i in range(self.probes) for batch in self.evaluator.batches(self._batch(i)))

    @torch.no_grad()
    def measure(self, eps: float) -> Probe | None:
        """The same directions and batches at every radius; None where the budget or the loss does not allow it."""
        each = self.method.queries_per_probe
        queries, tokens = each * self.probes, each * self.tokens
        if not self.ledger.affords(queries + self.reserve, tokens=tokens + self.reserve_tokens):
            return None
        sigma2 = self.sigma2
        with self.ledger.clock("calibration"):
            try:
                return probe(self._points(eps), eps, sigma2)
            except Diverged:
                return None

    def _batch(self, i: int) -> list[Encoded]:
        return [self.examples[j] for j in self.order[i]]

    def _points(self, eps: float) -> Iterator[ProbeQuery]:
        for i in range(self.probes):
            batches, path = self.evaluator.batches(self._batch(i)), ("calibration", f"{eps:g}", i)
            yield (
                self.method.direction(i),
                self.method.flipped_in_A(i) if self.method.has_halves else None,
                objective(self.evaluator, batches, self.ledger, self.noise, *path, purpose="calibration"),
            )
