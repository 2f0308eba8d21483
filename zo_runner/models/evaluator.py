"""The loss of a batch and the score of a split."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from zo_runner.models.batching import Batch, OptionBatch, PromptBatch, option_batch, texts_of
from zo_runner.models.encoding import Encoded
from zo_runner.models.generation import greedy_answers
from zo_runner.models.likelihood import Model, break_even, option_log_probs
from zo_runner.models.perturbed_model import Perturbed, Query
from zo_runner.tasks.base import Scoring
from zo_runner.tasks.metrics import ANSWER_METRICS, token_f1

# What one forward may hold at once: tokens, with which activations grow, and logits in float32, twice.
TOKENS_AT_ONCE = 16_384
LOGIT_BYTES = 1 << 30


@dataclass(frozen=True)
class Score:
    """What a split came to.

    Attributes:
        loss: mean, in nats per example, or per token where the loss is that of tokens.
        metrics: the task's metrics, from 0 to 1 and higher is better, but for "perplexity", from 1 and lower is better.
            The first selects.
    """

    loss: float
    metrics: dict[str, float]

    @property
    def order(self) -> tuple[float, float]:
        """Larger is better: the first metric, then the loss."""
        name, value = next(iter(self.metrics.items()))
        return -value if name == "perplexity" else value, -self.loss

    def as_dict(self) -> dict[str, float]:
        """loss and metrics under their names."""
        return {"loss": self.loss, **self.metrics}


class Evaluator:
    """Turns encoded examples into a loss, and a split into a score.

    Args:
        model: base model, or base with adapter; in eval mode.
        scoring: of the task.
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
        perturbed: Perturbed | None = None,
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
        return [self._batch(part, extra_padding) for part in self._bounded(examples, len(examples))]

    def loss(self, *batches: Batch) -> torch.Tensor:
        """The task's loss over all examples of the batches, 0-d float32.

        The mean over examples of the cross-entropy over options, the mean over answer tokens of their cross-entropy, or
        1 - mean F1.
        """
        return self.losses(batches)[0]

    def losses(self, batches: Sequence[Batch], points: int = 1) -> torch.Tensor:
        """The same at several points, [points] float32: every batch is read once, its rows repeated for each point."""
        parts = [self._sums(batch, points) for batch in batches]
        return torch.stack([totals for totals, _ in parts]).sum(dim=0) / sum(weight for _, weight in parts)

    def query(self, *batches: Batch) -> Query:
        """The loss of batches, as methods query it."""
        return Query(self, batches)

    @torch.inference_mode()
    def score(self, examples: Sequence[Encoded], batch_size: int = 64) -> Score:
        """Loss and metrics of many examples, batched by length so that little is padding."""
        if self.scoring.metrics[0] == "accuracy":
            return self._score_choices(examples, batch_size)
        loss = self._answer_loss(examples, batch_size) if self.scoring.loss != "f1" else math.nan
        if self.scoring.metrics[0] == "perplexity":
            return Score(loss, {"perplexity": math.exp(loss) if loss < 700 else math.inf})
        texts = self.answers(examples, batch_size)
        golds = [example.answers for example in examples]
        if self.scoring.loss == "f1":
            loss = 1.0 - sum(map(token_f1, texts, golds)) / len(texts)
        metrics = {name: sum(map(ANSWER_METRICS[name], texts, golds)) / len(texts) for name in self.scoring.metrics}
        return Score(loss, metrics)

    @torch.inference_mode()
    def answers(self, examples: Sequence[Encoded], batch_size: int = 64) -> list[str]:
        """The generated answer of each example, in order."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].prefix))
        texts = [""] * len(examples)
        start = 0
        for part in self._bounded([examples[i] for i in order], batch_size):
            for i, text in zip(order[start:], self._generate(part), strict=False):
                texts[i] = text
            start += len(part)
        return texts

    @torch.inference_mode()
    def option_sums(self, examples: Sequence[Encoded], batch_size: int = 64) -> list[list[float]]:
        """log p(option | prompt) of each option of each example, in nats, summed over its tokens."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].prefix))
        sums: list[list[float]] = [[] for _ in examples]
        start = 0
        for part in self._bounded([examples[i] for i in order], batch_size):
            rows = option_log_probs(self.model, self._batch(part)).tolist()
            for i, row in zip(order[start:], rows, strict=False):
                sums[i] = row[: len(examples[i].options)]
            start += len(part)
        return sums

    def _score_choices(self, examples: Sequence[Encoded], batch_size: int) -> Score:
        sums = self.option_sums(examples, batch_size)
        means = [
            [total / len(option) for total, option in zip(row, example.options, strict=True)]
            for row, example in zip(sums, examples, strict=True)
        ]
        worth = self._calibrated(examples, sums, batch_size) if self.scoring.calibrate else means
        hits = sum(_argmax(row) in example.correct for row, example in zip(worth, examples, strict=True))
        labels = [example.correct[0] for example in examples]
        if self.scoring.loss == "options":
            loss = sum(_cross_entropy(row, label) for row, label in zip(means, labels, strict=True)) / len(examples)
        else:
            tokens = sum(len(example.options[label]) for example, label in zip(examples, labels, strict=True))
            loss = -sum(row[label] for row, label in zip(sums, labels, strict=True)) / tokens
        return Score(loss, {"accuracy": hits / len(examples)})

    def _calibrated(
        self, examples: Sequence[Encoded], sums: Sequence[Sequence[float]], batch_size: int
    ) -> list[list[float]]:
        """How much the prompt adds to the log-probability of each option. Equal null prompts are read once."""
        nulls = [example.null for example in examples if example.null is not None]
        distinct = list(dict.fromkeys(nulls))
        known = dict(zip(distinct, self.option_sums(distinct, batch_size), strict=True))
        return [
            [total - without for total, without in zip(row, known[null], strict=True)]
            for row, null in zip(sums, nulls, strict=True)
        ]

    def _answer_loss(self, examples: Sequence[Encoded], batch_size: int) -> float:
        loss, predicted = 0.0, 0
        rows = sorted((example.only_correct() for example in examples), key=lambda example: example.length)
        for part in self._bounded(rows, batch_size):
            batch = self._batch(part)
            loss -= float(option_log_probs(self.model, batch).double().sum())
            predicted += batch.predicted
        return loss / predicted

    def _bounded(self, examples: Sequence[Encoded], batch_size: int) -> Iterator[list[Encoded]]:
        """Consecutive examples, as many at once as fit into memory."""
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

    def _batch(self, examples: Sequence[Encoded], extra_padding: int = 0) -> OptionBatch:
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
        """The loss summed over a batch at each point, and how many examples or tokens it is summed over."""
        if isinstance(batch, PromptBatch):
            found = map(token_f1, self._generate(batch.examples), (example.answers for example in batch.examples))
            return torch.tensor([len(batch) - sum(found)]), len(batch)
        every = batch if points == 1 else batch.repeated(points)
        sums_BO = option_log_probs(self.model, every)
        if self.scoring.loss == "answer":
            return -sums_BO.view(points, -1).sum(dim=1), batch.predicted
        means_BO = sums_BO / every.real_BOS.sum(dim=-1).clamp(min=1)
        losses_B = cross_entropy(means_BO, every.label_B, reduction="none")
        return losses_B.view(points, -1).sum(dim=1), len(batch)

    def _generate(self, examples: Sequence[Encoded]) -> list[str]:
        if self.tokenizer is None:
            raise RuntimeError("An answer was to be generated without a tokenizer.")
        return greedy_answers(
            self.model,
            self.tokenizer,
            [example.prefix for example in examples],
            max_new_tokens=self.scoring.max_new_tokens,
            stop=self.scoring.stop,
        )


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _cross_entropy(logits: Sequence[float], label: int) -> float:
    """In float64, where many losses are summed."""
    row = torch.tensor(logits, dtype=torch.float64)
    return float(row.logsumexp(0) - row[label])
