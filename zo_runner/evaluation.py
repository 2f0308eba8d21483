"""The loss of a batch, the score of a split, and the noise of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from zo_runner.encoding import Batch, Encoded, collate, split_by_length
from zo_runner.seeds import generator, normal

# What one more forward costs, in tokens of a forward under way: on a CPU reading the weights once more (about the
# arithmetic of 16 tokens) and, for small models, the time to launch operations (about that of 100M multiply-adds, where
# a token costs one per parameter); on an accelerator launches dominate. Rough: only speed depends on it.
CPU_OVERHEAD_TOKENS, CPU_OVERHEAD_PARAMETERS = 16, 100_000_000
ACCELERATOR_OVERHEAD_TOKENS = 8192


@dataclass(frozen=True)
class Score:
    """Mean loss (nats per example) and accuracy (0 to 1) of a split."""

    loss: float
    accuracy: float


class Evaluator:
    """Scores examples by the label words' logits at the last prompt token.

    All options come from one forward, and only one position per example goes through the vocabulary projection.

    Args:
        model: base model, or base with adapter; in eval mode.
        option_ids: token id of each label word.
        pad_id: token that fills short rows.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, option_ids: Sequence[int], pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.device = model.device
        on_cpu, parameters = self.device.type == "cpu", model.num_parameters()
        self.overhead = (
            CPU_OVERHEAD_TOKENS + CPU_OVERHEAD_PARAMETERS // parameters if on_cpu else ACCELERATOR_OVERHEAD_TOKENS
        )
        self.option_ids = torch.tensor(option_ids, device=self.device)

    def batch(self, examples: Sequence[Encoded], extra_padding: int = 0) -> Batch:
        """Examples as tensors on the model's device."""
        return collate(examples, pad_id=self.pad_id, device=self.device, extra_padding=extra_padding)

    def batches(self, examples: Sequence[Encoded], extra_padding: int = 0) -> list[Batch]:
        """The same examples as few batches of similar length, where that computes fewer tokens than one batch."""
        return [self.batch(group, extra_padding) for group in split_by_length(examples, self.overhead)]

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits of the options, [examples, options], float32."""
        out = self.model(input_ids=batch.ids_BT, use_cache=False, logits_to_keep=batch.last_B1)
        return out.logits[:, 0, self.option_ids].float()  # type: ignore[no-any-return]  # transformers types it Any

    def loss(self, *batches: Batch) -> torch.Tensor:
        """Mean cross-entropy over the options and over all examples of the batches, 0-d float32."""
        sums = [cross_entropy(self.logits(batch), batch.labels_B, reduction="sum") for batch in batches]
        return torch.stack(sums).sum() / sum(len(batch) for batch in batches)

    @torch.inference_mode()
    def score(self, examples: Sequence[Encoded], batch_size: int = 64) -> Score:
        """Loss and accuracy of many examples, batched by length so that little is padding."""
        by_length = sorted(examples, key=lambda example: len(example.ids))
        loss, correct = 0.0, 0
        for start in range(0, len(by_length), batch_size):
            batch = self.batch(by_length[start : start + batch_size])
            logits = self.logits(batch)
            loss += float(cross_entropy(logits.double(), batch.labels_B, reduction="sum"))
            correct += int((logits.argmax(dim=1) == batch.labels_B).sum())
        return Score(loss / len(by_length), correct / len(by_length))


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
        return loss + self.std * normal((), self.seed, "noise", *path).to(loss.device)
