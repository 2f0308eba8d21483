"""Scores of a split: its loss and the task's metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zo_runner.models.encoding import Encoded
from zo_runner.models.likelihood import option_log_probs
from zo_runner.models.loss import TaskLoss
from zo_runner.tasks.metrics import ANSWER_METRICS, metric_of, token_f1


@dataclass(frozen=True)
class Score:
    """Loss and metrics of a split.

    Attributes:
        loss: mean, in nats per example, or per token where the loss is that of tokens.
        metrics: the task's metrics, see `zo_runner.tasks.metrics`; the first selects.
    """

    loss: float
    metrics: dict[str, float]

    @property
    def order(self) -> tuple[float, float]:
        """Larger is better: the first metric, then the loss."""
        name, value = next(iter(self.metrics.items()))
        return metric_of(name).order(value), -self.loss

    def as_dict(self) -> dict[str, float]:
        """The loss and the metrics by name."""
        return {"loss": self.loss, **self.metrics}


class Evaluator(TaskLoss):
    """Scores splits by the loss and the metrics of a task. Takes the arguments of `TaskLoss`."""

    @torch.inference_mode()
    def score(self, examples: Sequence[Encoded], batch_size: int = 64) -> Score:
        """Loss and metrics of many examples, batched by length to keep padding low."""
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
        for part in self.bounded([examples[i] for i in order], batch_size):
            for i, text in zip(order[start:], self.generate(part), strict=False):
                texts[i] = text
            start += len(part)
        return texts

    @torch.inference_mode()
    def option_sums(self, examples: Sequence[Encoded], batch_size: int = 64) -> list[list[float]]:
        """Sum of log p(option | prompt) over the tokens of each option of each example, in nats."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].prefix))
        sums: list[list[float]] = [[] for _ in examples]
        start = 0
        for part in self.bounded([examples[i] for i in order], batch_size):
            rows = option_log_probs(self.model, self.batch(part)).tolist()
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
        """Log-probability of each option after the prompt, minus that after the null prompt."""
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
        for part in self.bounded(rows, batch_size):
            batch = self.batch(part)
            loss -= float(option_log_probs(self.model, batch).double().sum())
            predicted += batch.predicted
        return loss / predicted


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _cross_entropy(logits: Sequence[float], label: int) -> float:
    """Cross-entropy in float64, since many losses are summed."""
    row = torch.tensor(logits, dtype=torch.float64)
    return float(row.logsumexp(0) - row[label])
