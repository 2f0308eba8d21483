"""(a) The plain step of the literature: MeZO over a LoRA adapter, as its public loop takes it (arXiv:2305.17333).

One sequence per example and option, padded on the left to a multiple of 8, with an attention mask; logits at every
position, a log-softmax over the vocabulary at each of them; the mean over an option's tokens is its score, and the loss
the cross-entropy over the options. The perturbation moves every parameter of the adapter in place, by +eps, -2 eps and
+eps, along numbers that are drawn from one seed again at each of these passes and at the update.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.rounds import TimedSteps
from benchmarks.settings import Work
from zo_runner.models.encoding import Encoded

MULTIPLE = 8
SCALING = "canonical"  # alpha / r


class Plain:
    """Steps of the plain loop; a variant.

    Args:
        work: what they see.
        rank: of the adapter.
        lr: learning rate.
        eps: perturbation radius.
    """

    def __init__(self, work: Work, *, rank: int, lr: float, eps: float) -> None:
        self.work, self.lr, self.eps = work, lr, eps
        self.model, groups = work.setting.adapted(rank, SCALING)
        self.parameters: list[torch.Tensor] = [parameter for group in groups for parameter in group["params"]]

    def __call__(self, steps: range) -> TimedSteps:
        """Take some steps; the number of a step is its seed."""
        batches = self.work.batches(steps)
        start = time.perf_counter()
        losses = [self._step(batch, seed) for seed, batch in zip(steps, batches, strict=True)]
        return TimedSteps((time.perf_counter() - start) / len(steps), losses)

    @torch.inference_mode()
    def _step(self, batch: Sequence[Encoded], seed: int) -> float:
        """One step; (l+ + l-) / 2."""
        inputs = _collated(batch, self.work.setting.base.pad_id)
        self._shift(self.eps, seed)
        plus = float(_loss(self.model, *inputs))
        self._shift(-2 * self.eps, seed)
        minus = float(_loss(self.model, *inputs))
        self._shift(self.eps, seed)
        self._shift(-self.lr * (plus - minus) / (2 * self.eps), seed)
        return (plus + minus) / 2

    def _shift(self, scale: float, seed: int) -> None:
        """Move every parameter by `scale` times its numbers, drawn once more."""
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)


def _collated(batch: Sequence[Encoded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and the options' tokens, [B O, T] each, and the labels, [B]."""
    rows = [(*example.prefix, *option) for example in batch for option in example.options]
    lengths = [len(option) for example in batch for option in example.options]
    width = -(-max(map(len, rows)) // MULTIPLE) * MULTIPLE
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    scored = torch.arange(width)[None, :] >= width - torch.tensor(lengths)[:, None]
    return ids, mask, scored, torch.tensor([example.correct[0] for example in batch])


def _loss(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, scored: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    scored = scored[:, 1:]
    means = (log_probs * scored).sum(1) / scored.sum(1)
    return cross_entropy(means.view(len(labels), -1), labels)
