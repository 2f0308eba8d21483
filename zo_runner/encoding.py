"""Text to token ids: prompts cut to length, label words to single tokens, right-padded batches."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from zo_runner.errors import UserError
from zo_runner.tasks.base import Example

# Word pairs and triples that are one token each in most vocabularies: offered when the chosen ones are not.
SUGGESTIONS = (
    ("terrible", "great"), ("bad", "good"), ("negative", "positive"), ("no", "yes"), ("No", "Yes"), ("A", "B"),
    ("yes", "maybe", "no"), ("Yes", "Maybe", "No"), ("A", "B", "C"), ("A", "B", "C", "D"),
)  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it: the prompt's token ids and the label's index."""

    ids: tuple[int, ...]
    label: int


@dataclass(frozen=True)
class Batch:
    """Right-padded examples. B = examples, T = longest prompt.

    No attention mask: with right padding a causal model's logits at a prompt's last token cannot see the padding
    after it.

    Attributes:
        ids_BT: token ids.
        last_B1: position of each prompt's last token.
        labels_B: index of each label.
        tokens: number of tokens that are not padding.
    """

    ids_BT: torch.Tensor
    last_B1: torch.Tensor
    labels_B: torch.Tensor
    tokens: int

    def __len__(self) -> int:
        return int(self.labels_B.shape[0])


def collate(examples: Sequence[Encoded], *, pad_id: int, device: torch.device, extra_padding: int = 0) -> Batch:
    """Pad to the longest prompt, plus `extra_padding` columns, and move to `device`."""
    width = max(len(example.ids) for example in examples) + extra_padding
    rows = [list(example.ids) + [pad_id] * (width - len(example.ids)) for example in examples]
    return Batch(
        ids_BT=torch.tensor(rows).to(device),
        last_B1=torch.tensor([[len(example.ids) - 1] for example in examples]).to(device),
        labels_B=torch.tensor([example.label for example in examples]).to(device),
        tokens=sum(len(example.ids) for example in examples),
    )


def split_by_length(examples: Sequence[Encoded], overhead: int) -> list[list[Encoded]]:
    """Cut examples into groups of similar length, so that padding is not computed for nothing.

    Minimises the sum over groups of (rows * longest prompt + overhead), exactly. Within a group the order is kept.

    Args:
        examples: at least one.
        overhead: cost of one more forward, in tokens.
    """
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    # best[n] = (cost, start of the last group) for the n shortest examples
    best: list[tuple[int, int]] = [(0, 0)]
    for n in range(1, len(by_length) + 1):
        longest = len(examples[by_length[n - 1]].ids)
        best.append(min((best[start][0] + (n - start) * longest + overhead, start) for start in range(n)))
    groups: list[list[Encoded]] = []
    end = len(by_length)
    while end:
        start = best[end][1]
        groups.append([examples[i] for i in sorted(by_length[start:end])])
        end = start
    return groups[::-1]


class Encoder:
    """Encodes the prompts of one task for one tokenizer.

    Args:
        tokenizer: of the model.
        label_words: one per label.
        max_length: longest prompt in tokens.

    Raises:
        UserError: on the first use, when a label word is not one token of its own after a prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, label_words: Sequence[str], max_length: int) -> None:
        self.tokenizer = tokenizer
        self.label_words = list(label_words)
        self.max_length = max_length

    def prompts(self, examples: Sequence[Example]) -> list[Encoded]:
        """Token ids of the prompts: BOS where the tokenizer adds one, and the end of a prompt that is too long."""
        ids = self.tokenizer([example.prompt.rstrip(" ") for example in examples])["input_ids"]
        return [Encoded(self._cut(i), example.label) for i, example in zip(ids, examples, strict=True)]

    def _cut(self, ids: list[int]) -> tuple[int, ...]:
        if len(ids) <= self.max_length:
            return tuple(ids)
        # Tested on the ids themselves: `add_bos_token` reads False after a reload although a BOS is prepended.
        has_bos = ids[0] == self.tokenizer.bos_token_id and self.max_length > 1
        return (ids[0], *ids[len(ids) - self.max_length + 1 :]) if has_bos else tuple(ids[-self.max_length :])

    def options(self, example: Example) -> list[int]:
        """The token id of each label word as it follows `example`'s prompt.

        The word is encoded together with the prompt, since a tokenizer may merge across the border.

        Raises:
            UserError: a word is not one token, is unknown, changes the prompt's tokens, or shares its token with
                another.
        """
        found = [self._option(example, word) for word in self.label_words]
        bad = [
            word for word, token in zip(self.label_words, found, strict=True) if token is None or found.count(token) > 1
        ]
        if bad:
            size = len(self.label_words)
            usable = [" ".join(s) for s in SUGGESTIONS if len(s) == size and self._distinct(example, s)]
            hint = f" Such as: {'; '.join(usable)}." if usable else ""
            raise UserError(
                f"Invalid task.label_words: {', '.join(map(repr, bad))}. Must be words that are one token each, "
                f"and different tokens, for this model's tokenizer.{hint}"
            )
        return [token for token in found if token is not None]

    def _distinct(self, example: Example, words: Sequence[str]) -> bool:
        tokens = [self._option(example, word) for word in words]
        return None not in tokens and len(set(tokens)) == len(tokens)

    def _option(self, example: Example, word: str) -> int | None:
        prompt = example.prompt.rstrip(" ")
        space = "" if prompt.endswith(tuple(string.whitespace)) else " "
        before = self.tokenizer(prompt)["input_ids"]
        after = self.tokenizer(prompt + space + word)["input_ids"]
        if len(after) != len(before) + 1 or after[:-1] != before or after[-1] == self.tokenizer.unk_token_id:
            return None
        return int(after[-1])
