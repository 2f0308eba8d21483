"""Encoded examples as tensors, laid side by side in rows so that little of them is padding.

A text is a prompt and the options that follow it, but for the last token of each, which nothing is read after. The
options of one text are branches: each sees the prompt and itself, and its positions go on where the prompt's end. A row
holds one text or several that do not see each other, padded on the right. Where a row is one prompt with one option at
most, the plain causal mask says the same, and none is made.

Shapes: R rows, L their width, K positions of a row that predict a token; B examples, O options of the one that has
most, S longest option.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zo_runner.devices import moved
from zo_runner.models.encoding import Encoded


@dataclass(frozen=True)
class OptionBatch:
    """Examples whose options are scored by one forward.

    Attributes:
        ids_RL: tokens.
        position_RL: their positions; None if they are 0, 1, 2, ... in every row.
        seen_R1LL: tokens (last) that a token sees; None if these are all up to itself.
        keep_RK: positions whose logits are needed.
        at_BOS: the one of the R * K kept positions that predicts each token of each option.
        target_BOS: the tokens of the options.
        real_BOS: True where such a token exists.
        label_B: the option that is trained on.
        predicted: tokens of all options.
        tokens: tokens read, without padding.
    """

    ids_RL: torch.Tensor
    position_RL: torch.Tensor | None
    seen_R1LL: torch.Tensor | None
    keep_RK: torch.Tensor
    at_BOS: torch.Tensor
    target_BOS: torch.Tensor
    real_BOS: torch.Tensor
    label_B: torch.Tensor
    predicted: int
    tokens: int

    def __len__(self) -> int:
        return len(self.label_B)

    def repeated(self, times: int) -> "OptionBatch":
        """The batch with all rows repeated `times` times, one copy after the other; examples likewise."""

        def again(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.repeat(times, *[1] * (tensor.dim() - 1))

        copy_B111 = torch.arange(times, device=self.at_BOS.device).repeat_interleave(len(self))[:, None, None]
        return OptionBatch(
            ids_RL=again(self.ids_RL),
            position_RL=None if self.position_RL is None else again(self.position_RL),
            seen_R1LL=None if self.seen_R1LL is None else again(self.seen_R1LL),
            keep_RK=again(self.keep_RK),
            at_BOS=again(self.at_BOS) + copy_B111 * self.keep_RK.numel(),
            target_BOS=again(self.target_BOS),
            real_BOS=again(self.real_BOS),
            label_B=again(self.label_B),
            predicted=self.predicted * times,
            tokens=self.tokens * times,
        )


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


Batch = OptionBatch | PromptBatch


@dataclass(frozen=True)
class PackedText:
    """A prompt, and options that follow it.

    Attributes:
        example: index of the example.
        branches: indices of its options; those of one token need not be read.
        length: tokens to read.
    """

    example: int
    branches: tuple[int, ...]
    length: int


def texts_of(examples: Sequence[Encoded], *, branching: bool) -> list[PackedText]:
    """Texts to read: one per example or, unless texts may branch, one per option of several tokens."""
    texts = []
    for b, example in enumerate(examples):
        longer = tuple(o for o, option in enumerate(example.options) if len(option) > 1)
        for branches in [longer] if branching or not longer else [(o,) for o in longer]:
            length = len(example.prefix) + sum(len(example.options[o]) - 1 for o in branches)
            texts.append(PackedText(b, branches, length))
    return texts


def option_batch(
    examples: Sequence[Encoded],
    *,
    break_even: int | None,
    pad_id: int,
    device: torch.device | str,
    extra_padding: int = 0,
) -> OptionBatch:
    """Lay out examples and move them to `device`.

    Args:
        examples: at least one.
        break_even: the width at which a row's attention costs as much as all else; None to give every text a row of its
            own, without branches.
        pad_id: token that fills short rows.
        device: where to put the tensors.
        extra_padding: columns of padding added to every row.
    """
    texts = texts_of(examples, branching=break_even is not None)
    if break_even is None:
        rows = [[text] for text in texts]
    else:
        rows = [[texts[i] for i in row] for row in side_by_side([text.length for text in texts], break_even)]
    sheet = _Sheet(examples)
    for row in rows:
        sheet.write(row)
    width = max(map(len, sheet.ids)) + extra_padding
    kept = max(map(len, sheet.keep))
    at = [[[r * kept + k for r, k in option] for option in options] for options in sheet.predicted_at]
    real = [[[1] * len(option) for option in example.options] for example in examples]
    position, seen = None, None
    if any(len(row) > 1 or len(row[0].branches) > 1 for row in rows):
        position = moved(_filled(sheet.positions, width), device)
        # Padding is a text of its own, since softmax over nothing is not a number.
        texts_RL, branches_RL = _filled(sheet.texts, width, -1), _filled(sheet.branches, width)
        seen = _seen(moved(texts_RL, device), moved(branches_RL, device))
    return OptionBatch(
        ids_RL=moved(_filled(sheet.ids, width, pad_id), device),
        position_RL=position,
        seen_R1LL=seen,
        keep_RK=moved(_filled(sheet.keep, kept), device),
        at_BOS=moved(_per_token(at), device),
        target_BOS=moved(_per_token([example.options for example in examples]), device),
        real_BOS=moved(_per_token(real).bool(), device),
        label_B=moved(torch.tensor([example.correct[0] for example in examples]), device),
        predicted=sum(len(option) for example in examples for option in example.options),
        tokens=sum(text.length for text in texts),
    )


def side_by_side(lengths: Sequence[int], break_even: int) -> list[list[int]]:
    """Share texts out among rows so that a forward over the rows, padded to the longest, is cheap.

    A token of a row of width w costs 1 + w / break_even, and padding 1 more: of two ways that cost about the same, the
    one with less padding. For every number of rows, the longest text left goes to the emptiest row; the cheapest number
    wins. Texts keep their order within a row, and rows that of their first texts.

    Args:
        lengths: tokens of each text; at least one.
        break_even: the width at which a row's attention costs as much as all else.

    Returns:
        the indices of each row's texts.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best: list[list[int]] = []
    least = float("inf")
    for count in range(1, len(lengths) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [(0, r) for r in range(count)]
        for i in longest_first:
            tokens, r = filled[0]
            rows[r].append(i)
            heapq.heapreplace(filled, (tokens + lengths[i], r))
        width = max(tokens for tokens, _ in filled)
        computed = count * width
        cost = computed * (break_even + width) + (computed - sum(lengths)) * break_even
        if cost < least:
            best, least = rows, cost
    return sorted(sorted(row) for row in best)


class _Sheet:
    """Rows of tokens while they are laid out.

    Attributes:
        ids, positions: by row and column.
        texts: index of the text in its row that a token belongs to.
        branches: 0 for the prompt, and 1, 2, ... for the options that follow it.
        keep: by row, the columns that predict a token.
        predicted_at: by example, option and token, the row and the index of the kept column that predicts it.
    """

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples
        self.ids: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.texts: list[list[int]] = []
        self.branches: list[list[int]] = []
        self.keep: list[list[int]] = []
        self.predicted_at: list[list[list[tuple[int, int]]]] = [[[] for _ in e.options] for e in examples]

    def write(self, row: Sequence[PackedText]) -> None:
        """Add a row."""
        for rows in (self.ids, self.positions, self.texts, self.branches, self.keep):
            rows.append([])
        for number, text in enumerate(row):
            example, places = self.examples[text.example], self.predicted_at[text.example]
            prompt = len(example.prefix)
            self._part(example.prefix, 0, number, 0)
            first = self._kept(1)
            for branch, o in enumerate(text.branches, 1):
                rest = example.options[o][:-1]
                self._part(rest, prompt, number, branch)
                places[o] = first + self._kept(len(rest))
            for place in places:
                place[:] = place or first

    def _part(self, ids: Sequence[int], position: int, text: int, branch: int) -> None:
        self.ids[-1].extend(ids)
        self.positions[-1].extend(range(position, position + len(ids)))
        self.texts[-1].extend([text] * len(ids))
        self.branches[-1].extend([branch] * len(ids))

    def _kept(self, count: int) -> list[tuple[int, int]]:
        """Keep the last `count` columns; return the row and index of each among the kept ones."""
        row, known, end = len(self.ids) - 1, len(self.keep[-1]), len(self.ids[-1])
        self.keep[-1].extend(range(end - count, end))
        return [(row, known + k) for k in range(count)]


def _filled(rows: Sequence[Sequence[int]], width: int, fill: int = 0) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _per_token(values: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """Values by example, option and token, [B, O, S]; 0 where there is none."""
    options = max(map(len, values))
    longest = max(len(option) for row in values for option in row)
    rows: list[Sequence[int]] = [option for row in values for option in [*row, *[()] * (options - len(row))]]
    return _filled(rows, longest).reshape(len(values), options, longest)


def _seen(owner_RL: torch.Tensor, branch_RL: torch.Tensor) -> torch.Tensor:
    """Mask of the tokens that a token sees, [R, 1, L, L]; padding sees padding."""
    width = owner_RL.shape[1]
    same_text = owner_RL[:, :, None] == owner_RL[:, None, :]
    of_prompt = branch_RL[:, None, :] == 0
    same_branch = branch_RL[:, :, None] == branch_RL[:, None, :]
    before = torch.ones(width, width, dtype=torch.bool, device=owner_RL.device).tril()
    return (same_text & (of_prompt | same_branch) & before)[:, None]
