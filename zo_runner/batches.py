"""Encoded examples as padded tensors, grouped so that little of them is padding.

Shapes: B examples, O options of the one that has most, T longest first forward, K longest option; R options that need a
second forward, S longest of these. Rows are padded on the right: a causal model's logits at a token cannot see what
comes after it, so the first forward needs no attention mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from zo_runner.devices import moved
from zo_runner.encoding import Encoded


@dataclass(frozen=True)
class Continuations:
    """Options of more than one token, which are read after their example's prompt.

    Attributes:
        row_R: which example.
        option_R: which of its options.
        ids_RS: the option's tokens but for the last, which is not read.
        targets_RS: the option's tokens but for the first, which the prompt's last token predicts.
        real_RS: which of them are not padding.
    """

    row_R: torch.Tensor
    option_R: torch.Tensor
    ids_RS: torch.Tensor
    targets_RS: torch.Tensor
    real_RS: torch.Tensor

    def rows(self, index: torch.Tensor) -> "Continuations":
        """Some of the rows."""
        tensors = (self.row_R, self.option_R, self.ids_RS, self.targets_RS, self.real_RS)
        return Continuations(*(tensor[index] for tensor in tensors))

    def repeated(self, points: int, examples: int) -> "Continuations":
        """As many copies of all rows, one after the other, each of the next copy of the examples."""
        rows = torch.arange(len(self.row_R), device=self.row_R.device).repeat(points)
        every = self.rows(rows)
        copy_R = torch.arange(points, device=self.row_R.device).repeat_interleave(len(self.row_R))
        return replace(every, row_R=every.row_R + copy_R * examples)


@dataclass(frozen=True)
class ChoiceBatch:
    """Examples with several options each: one forward over the prompts, and one over what single tokens leave.

    Attributes:
        ids_BT: prompts.
        length_B: their lengths.
        first_BO: first token of each option.
        real_BO: which options exist.
        count_BO: tokens per option, 1 where there is none.
        label_B: the option that is trained on.
        rest: options of more than one token; None if there is none.
        tokens: tokens of both forwards that are not padding.
    """

    ids_BT: torch.Tensor
    length_B: torch.Tensor
    first_BO: torch.Tensor
    real_BO: torch.Tensor
    count_BO: torch.Tensor
    label_B: torch.Tensor
    rest: Continuations | None
    tokens: int

    def __len__(self) -> int:
        return len(self.ids_BT)

    def repeated(self, points: int) -> "ChoiceBatch":
        """As many copies of all rows, one after the other. `tokens` stays that of one."""
        rest = None if self.rest is None else self.rest.repeated(points, len(self))
        every: ChoiceBatch = _repeated(self, points, rest=rest)
        return every


@dataclass(frozen=True)
class AnswerBatch:
    """Examples with one option each: one forward over prompt and option.

    Attributes:
        ids_BT: prompts and options but for the last token, which is not read.
        at_BK: positions that predict the option's tokens.
        targets_BK: the option's tokens.
        real_BK: which of them are not padding.
        count: number of the options' tokens.
        tokens: tokens that are not padding.
    """

    ids_BT: torch.Tensor
    at_BK: torch.Tensor
    targets_BK: torch.Tensor
    real_BK: torch.Tensor
    count: int
    tokens: int

    def __len__(self) -> int:
        return len(self.ids_BT)

    def repeated(self, points: int) -> "AnswerBatch":
        """As many copies of all rows, one after the other. `tokens` and `count` stay those of one."""
        every: AnswerBatch = _repeated(self, points)
        return every


@dataclass(frozen=True)
class PromptBatch:
    """Prompts whose answers are generated.

    Attributes:
        examples: prefixes and gold answers.
        tokens: tokens of the prompts.
    """

    examples: tuple[Encoded, ...]
    tokens: int

    def __len__(self) -> int:
        return len(self.examples)


Batch = ChoiceBatch | AnswerBatch | PromptBatch


def _repeated(batch: "ChoiceBatch | AnswerBatch", points: int, **others: Any) -> Any:
    values = ((f.name, getattr(batch, f.name)) for f in fields(batch))
    rows: dict[str, Any] = {k: v.repeat(points, *(1,) * (v.dim() - 1)) for k, v in values if torch.is_tensor(v)}
    return replace(batch, **rows, **others)


def choice_batch(
    examples: Sequence[Encoded], *, pad_id: int, device: torch.device | str, extra_padding: int = 0
) -> ChoiceBatch:
    """Pad prompts to the longest, plus `extra_padding` columns, and move everything to `device`."""
    longer = [
        (b, o, option)
        for b, example in enumerate(examples)
        for o, option in enumerate(example.options)
        if len(option) > 1
    ]
    rest = None
    if longer:
        rows, options, texts = zip(*longer, strict=True)
        rest = Continuations(
            row_R=moved(torch.tensor(rows), device),
            option_R=moved(torch.tensor(options), device),
            ids_RS=_padded([text[:-1] for text in texts], pad_id, device),
            targets_RS=_padded([text[1:] for text in texts], 0, device),
            real_RS=_real([len(text) - 1 for text in texts], device),
        )
    prefixes = [example.prefix for example in examples]
    return ChoiceBatch(
        ids_BT=_padded(prefixes, pad_id, device, extra_padding),
        length_B=moved(torch.tensor([len(prefix) for prefix in prefixes]), device),
        first_BO=_padded([[option[0] for option in example.options] for example in examples], 0, device),
        real_BO=_real([len(example.options) for example in examples], device),
        count_BO=_padded([[len(option) for option in example.options] for example in examples], 1, device),
        label_B=moved(torch.tensor([example.correct[0] for example in examples]), device),
        rest=rest,
        tokens=sum(map(len, prefixes)) + sum(len(text) - 1 for _, _, text in longer),
    )


def answer_batch(
    examples: Sequence[Encoded], *, pad_id: int, device: torch.device | str, extra_padding: int = 0
) -> AnswerBatch:
    """Pad prompt and only option to the longest, plus `extra_padding` columns, and move everything to `device`."""
    answers = [example.options[0] for example in examples]
    texts = [(*example.prefix, *answer[:-1]) for example, answer in zip(examples, answers, strict=True)]
    starts = [len(example.prefix) - 1 for example in examples]
    positions = [range(start, start + len(answer)) for start, answer in zip(starts, answers, strict=True)]
    return AnswerBatch(
        ids_BT=_padded(texts, pad_id, device, extra_padding),
        at_BK=_padded(positions, 0, device),
        targets_BK=_padded(answers, 0, device),
        real_BK=_real([len(answer) for answer in answers], device),
        count=sum(map(len, answers)),
        tokens=sum(map(len, texts)),
    )


def split_by_length(examples: Sequence[Encoded], overhead: int) -> list[list[Encoded]]:
    """Cut examples into groups of similar length, so that padding is not computed for nothing.

    Minimises the sum over groups of (rows * longest + overhead), exactly. Within a group the order is kept.

    Args:
        examples: at least one.
        overhead: cost of one more forward, in tokens.
    """
    by_length = sorted(range(len(examples)), key=lambda i: examples[i].length)
    # best[n] = (cost, start of the last group) for the n shortest examples
    best: list[tuple[int, int]] = [(0, 0)]
    for n in range(1, len(by_length) + 1):
        longest = examples[by_length[n - 1]].length
        best.append(min((best[start][0] + (n - start) * longest + overhead, start) for start in range(n)))
    groups: list[list[Encoded]] = []
    end = len(by_length)
    while end:
        start = best[end][1]
        groups.append([examples[i] for i in sorted(by_length[start:end])])
        end = start
    return groups[::-1]


def _padded(
    rows: Sequence[Sequence[int]], fill: int, device: torch.device | str, extra_padding: int = 0
) -> torch.Tensor:
    width = max(map(len, rows)) + extra_padding
    return moved(torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows]), device)


def _real(lengths: Sequence[int], device: torch.device | str) -> torch.Tensor:
    return moved(torch.arange(max(lengths))[None, :].lt(torch.tensor(lengths)[:, None]), device)
