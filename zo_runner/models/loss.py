"""The loss of a batch, at the parameters or at several points around them."""

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from zo_runner.models.batching import Batch, OptionBatch, PromptBatch, option_batch, texts_of
from zo_runner.models.encoding import Encoded
from zo_runner.models.generation import greedy_answers
from zo_runner.models.likelihood import Model, break_even, option_log_probs
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.tasks.base import Scoring
from zo_runner.tasks.metrics import token_f1

# Limits of one forward: tokens, with which activations grow, and bytes of logits in float32, twice.
TOKENS_AT_ONCE = 16_384
LOGIT_BYTES = 1 << 30


class TaskLoss:
    """Loss of encoded examples, as their task defines it.

    Args:
        model: base model, or base with adapter; in eval mode.
        scoring: the task's loss and metrics.
        pad_id: token that fills short rows.
        context: the most tokens that the model can read; None if it has no limit.
        tokenizer: of the model; only generated answers need it.
        perturbed: the model at points around its parameters; None where queries write to the parameters.
    """

    def __init__(
        self,
        model: Model,
        scoring: Scoring,
        *,
        pad_id: int,
        context: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        perturbed: PerturbedModel | None = None,
    ) -> None:
        self.perturbed = perturbed
        self.model, self.scoring, self.pad_id, self.context, self.tokenizer = model, scoring, pad_id, context, tokenizer
        # Where inputs begin, wherever the layers are.
        self.device = next(model.get_input_embeddings().parameters()).device
        self.break_even = break_even(model)

    def batches(self, examples: Sequence[Encoded], extra_padding: int = 0) -> list[Batch]:
        """Examples as tensors on the model's device, ready for `loss`.

        One batch, unless it would not fit into memory.

        Args:
            examples: of one query.
            extra_padding: columns of padding added to each batch, as far as the model can read them.
        """
        if self.scoring.loss == "f1":
            return [PromptBatch(tuple(examples), sum(len(example.prefix) for example in examples))]
        if self.scoring.loss == "answer":
            examples = [example.only_correct() for example in examples]
        return [self.batch(part, extra_padding) for part in self.bounded(examples, len(examples))]

    def loss(self, *batches: Batch) -> torch.Tensor:
        """The task's loss over all examples of the batches, 0-d float32.

        The mean over examples of the cross-entropy over options, the mean over answer tokens of their cross-entropy, or
        1 - mean F1.
        """
        return self.losses(batches)[0]

    def losses(self, batches: Sequence[Batch], points: int = 1) -> torch.Tensor:
        """The loss at several points, [points] float32: every batch is read once, its rows repeated for each point."""
        parts = [self._sums(batch, points) for batch in batches]
        return torch.stack([totals for totals, _ in parts]).sum(dim=0) / sum(weight for _, weight in parts)

    def bounded(self, examples: Sequence[Encoded], batch_size: int) -> Iterator[list[Encoded]]:
        """Yield consecutive examples, as many at once as fit into memory."""
        part: list[Encoded] = []
        rows = read = longest = logits = 0
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        for example in examples:
            texts = texts_of([example], branching=self.break_even is not None)
            own, width = sum(text.length for text in texts), max(text.length for text in texts)
            needed = own - len(texts) * (len(example.prefix) - 1)
            # Texts that share rows leave little padding.
            computed = read + own if self.break_even else (rows + len(texts)) * max(longest, width)
            too_much = computed > TOKENS_AT_ONCE or 8 * vocabulary * (logits + needed) > LOGIT_BYTES
            if part and (len(part) == batch_size or too_much):
                yield part
                part, rows, read, longest, logits = [], 0, 0, 0, 0
            part.append(example)
            rows, read, longest, logits = rows + len(texts), read + own, max(longest, width), logits + needed
        yield part

    def batch(self, examples: Sequence[Encoded], extra_padding: int = 0) -> OptionBatch:
        """Examples as one batch."""
        if extra_padding and self.context is not None:
            longest = max(text.length for text in texts_of(examples, branching=self.break_even is not None))
            extra_padding = max(0, min(extra_padding, self.context - longest))
        return option_batch(
            examples,
            break_even=self.break_even,
            pad_id=self.pad_id,
            device=self.device,
            extra_padding=extra_padding,
        )

    def _sums(self, batch: Batch, points: int) -> tuple[torch.Tensor, int]:
        """The loss summed over a batch at each point, and the number of examples or tokens in the sum."""
        if isinstance(batch, PromptBatch):
            found = map(token_f1, self.generate(batch.examples), (example.answers for example in batch.examples))
            return torch.tensor([len(batch) - sum(found)]), len(batch)
        every = batch if points == 1 else batch.repeated(points)
        sums_BO = option_log_probs(self.model, every)
        if self.scoring.loss == "answer":
            return -sums_BO.view(points, -1).sum(dim=1), batch.predicted
        means_BO = sums_BO / every.real_BOS.sum(dim=-1).clamp(min=1)
        losses_B = cross_entropy(means_BO, every.label_B, reduction="none")
        return losses_B.view(points, -1).sum(dim=1), len(batch)

    def generate(self, examples: Sequence[Encoded]) -> list[str]:
        """Greedy answers of some examples, read at once."""
        if self.tokenizer is None:
            raise RuntimeError("Generating an answer needs a tokenizer.")
        return greedy_answers(
            self.model,
            self.tokenizer,
            [example.prefix for example in examples],
            max_new_tokens=self.scoring.max_new_tokens,
            stop=self.scoring.stop,
        )
