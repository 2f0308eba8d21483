"""Text to token ids: prompts cut to length, and the options that may follow them.

A tokenizer may merge across the border of prompt and option, so an option is never encoded alone: prompt and option are
encoded together, and an example is scored from the first token where any of its options leaves the prompt's own tokens.
Where nothing merges, these are the option's tokens; where something does, all options of the example are still scored
from one place of the text.
"""

import string
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from zo_runner.errors import RunWarning, UserError, invalid
from zo_runner.tasks.base import Example, Scoring

# Word pairs and triples that are one token each in most vocabularies: offered when the chosen ones are not.
SUGGESTIONS = (
    ("terrible", "great"), ("bad", "good"), ("negative", "positive"), ("no", "yes"), ("No", "Yes"), ("A", "B"),
    ("yes", "maybe", "no"), ("Yes", "Maybe", "No"), ("A", "B", "C"), ("A", "B", "C", "D"),
)  # fmt: skip

# Texts that the tokenizer is given at once: enough to be quick, few enough to be small.
_TOKENIZED_AT_ONCE = 4096


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it.

    Attributes:
        prefix: token ids before any option: the tokenizer's leading tokens and the prompt. At least one.
        options: token ids of each option, all of them scored. At least one each.
        correct: indices of the right options; the first is trained on.
        null: the same options after the null prompt, for calibration.
        answers: gold answers of a generation task, each a tuple of spans.
    """

    prefix: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    correct: tuple[int, ...] = (0,)
    null: "Encoded | None" = None
    answers: tuple[tuple[str, ...], ...] = ()

    @property
    def length(self) -> int:
        """Number of tokens read: the prefix, and a single option without its last token."""
        return len(self.prefix) + (len(self.options[0]) - 1 if len(self.options) == 1 else 0)

    def only_correct(self) -> "Encoded":
        """The same example with only the option that is trained on."""
        return replace(self, options=(self.options[self.correct[0]],), correct=(0,), null=None)


class Encoder:
    """Encodes the examples of one task for one model.

    Args:
        tokenizer: of the model.
        scoring: of the task.
        context: the most tokens that the model can read; None if it has no limit.
        first_token: begins every prompt in place of the tokenizer's leading tokens; None to keep those.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        scoring: Scoring,
        context: int | None = None,
        first_token: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.scoring = scoring
        limits = [limit for limit in (scoring.max_length, context) if limit is not None]
        self.limit = min(limits) if limits else None
        self.bos = self._leading_tokens() if first_token is None else (first_token,)

    def encode(self, examples: Sequence[Example], split: str = "train") -> list[Encoded]:
        """Encode examples. A text without prompt that is too long becomes several examples, one per window.

        Warns of prompts that were cut and of borders that the tokenizer merges.

        Args:
            examples: of one split.
            split: its name, for messages.

        Raises:
            UserError: an option of no token, two options of the same tokens, an option that leaves no room for a
                prompt, or, where one token is required, an option of more.
        """
        encoded: list[Encoded] = []
        lengths: list[int] = []
        merged = 0
        for example, prompt, fulls in self._tokenized(examples):
            whole, merges = self._join(example, prompt, fulls)
            merged += merges
            if self.scoring.single_token:
                self._require_single_tokens(example, whole)
            if self.scoring.calibrate:
                whole = replace(whole, null=self._null(example))
            text = example.prompt == "" and len(example.options) == 1
            for part in self._windows(whole) if text else [whole]:
                fitted = self._fit(part)
                if fitted is not part:
                    lengths.append(len(part.prefix))
                encoded.append(fitted)
        if lengths:
            warnings.warn(
                f"{len(lengths)} of {len(examples)} {split} prompts are cut at the beginning: the longest has "
                f"{max(lengths)} tokens; the limit is {self.limit} with the option (task.max_length or the model's)",
                RunWarning,
                stacklevel=2,
            )
        if merged:
            warnings.warn(
                f"in {merged} of {len(examples)} {split} prompts the tokenizer merges the end of the prompt with an "
                "option: these are scored from the last token that prompt and options have in common",
                RunWarning,
                stacklevel=2,
            )
        return encoded

    def _leading_tokens(self) -> tuple[int, ...]:
        """Tokens that the tokenizer puts before a text.

        Read off the ids: `add_bos_token` reads False after a reload although a BOS is prepended. Tokens that it puts
        after a text are left out, since an option follows there.
        """
        bare = self._ids(["a"])[0]
        marked = list(self.tokenizer(["a"])["input_ids"][0])
        starts = (i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
        return tuple(marked[: next(starts, 0)])

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [list(row) for row in ids]

    def _tokenized(self, examples: Sequence[Example]) -> Iterator[tuple[Example, list[int], list[list[int]]]]:
        """Yield each example, its prompt's ids, and the ids of prompt and option together."""
        chunk: list[Example] = []
        count = 0
        for example in examples:
            chunk.append(example)
            count += 1 + len(example.options)
            if count >= _TOKENIZED_AT_ONCE:
                yield from self._tokenized_chunk(chunk)
                chunk, count = [], 0
        if chunk:
            yield from self._tokenized_chunk(chunk)

    def _tokenized_chunk(self, examples: Sequence[Example]) -> Iterator[tuple[Example, list[int], list[list[int]]]]:
        rows = iter(self._ids([text for example in examples for text in _texts(example)]))
        for example in examples:
            yield example, next(rows), [next(rows) for _ in example.options]

    def _join(self, example: Example, prompt: list[int], fulls: list[list[int]]) -> tuple[Encoded, bool]:
        """The encoded example, and True if the tokenizer merges across the border of prompt and option."""
        start = min(_common(prompt, full) for full in fulls)
        options = tuple(tuple(full[start:]) for full in fulls)
        for text, option in zip(example.options, options, strict=True):
            if not option:
                raise UserError(f"Invalid option {text!r}: no token of its own. Must have at least one after a prompt.")
        if len(set(options)) < len(options):
            twice = [text for text, option in zip(example.options, options, strict=True) if options.count(option) > 1]
            if self.scoring.single_token:
                raise self._not_single(example, twice)
            raise UserError(
                f"Invalid options {', '.join(map(repr, twice))}: the same tokens for this model's tokenizer. "
                "Must be different options."
            )
        prefix = (*self.bos, *prompt[:start]) or (self._separator(),)
        return Encoded(prefix, options, example.correct, None, example.answers), start < len(prompt)

    def _separator(self) -> int:
        """First token of a text without prompt where the tokenizer puts nothing first: the end-of-text token."""
        if self.tokenizer.eos_token_id is None:
            raise invalid(
                "model", self.tokenizer.name_or_path, "one with a BOS or EOS token, for a text without prompt"
            )
        return int(self.tokenizer.eos_token_id)

    def _null(self, example: Example) -> Encoded:
        bare = replace(example, prompt=example.null_prompt or "", null_prompt=None)
        ((_, prompt, fulls),) = self._tokenized([bare])
        return self._join(bare, prompt, fulls)[0]

    def _windows(self, text: Encoded) -> list[Encoded]:
        """Cut a text without prompt into pieces that the model can read; each begins as a text does."""
        (ids,) = text.options
        if self.limit is None:
            return [text]
        room = self.limit - len(text.prefix)
        if room < 1:
            raise invalid("task.max_length", self.limit, f"> {len(text.prefix)}, to leave room for text")
        return [replace(text, options=(ids[i : i + room],)) for i in range(0, len(ids), room)]

    def _fit(self, example: Encoded) -> Encoded:
        """Cut the prompt at the beginning, after a BOS, if it is too long."""
        if self.limit is None:
            return example
        generated = self.scoring.max_new_tokens if example.answers else 0
        room = self.limit - max(generated, *(len(option) for option in example.options))
        if len(example.prefix) <= room:
            return example
        keep = room - len(self.bos)
        if keep < 1:
            raise invalid(
                "task.max_length",
                self.limit,
                f">= {self.limit + 1 - keep} for an option or answer of this length (the model may allow less)",
            )
        return replace(example, prefix=(*self.bos, *example.prefix[-keep:]))

    def _require_single_tokens(self, example: Example, encoded: Encoded) -> None:
        unknown = self.tokenizer.unk_token_id
        bad = [
            text
            for text, option in zip(example.options, encoded.options, strict=True)
            if len(option) != 1 or option[0] == unknown
        ]
        if bad:
            raise self._not_single(example, bad)

    def _not_single(self, example: Example, bad: Sequence[str]) -> UserError:
        size = len(example.options)
        usable = [" ".join(s) for s in SUGGESTIONS if len(s) == size and self._is_single(example, s)]
        hint = f" Such as: {'; '.join(usable)}." if usable else ""
        return UserError(
            f"Invalid task.label_words: {', '.join(map(repr, bad))}. Must be words that are one token each, and "
            f"different tokens, for this model's tokenizer, or use task.single_token=false.{hint}"
        )

    def _is_single(self, example: Example, words: tuple[str, ...]) -> bool:
        ((_, prompt, fulls),) = self._tokenized([replace(example, options=words)])
        ends = {full[-1] for full in fulls if full[:-1] == prompt and full[-1] != self.tokenizer.unk_token_id}
        return len(ends) == len(words)


def join(prompt: str, option: str) -> str:
    """Prompt and option as one text: one space between them, or nothing after white space of another kind."""
    prompt = prompt.rstrip(" ")
    space = "" if not prompt or prompt.endswith(tuple(string.whitespace)) else " "
    return prompt + space + option


def _texts(example: Example) -> list[str]:
    """The prompt, and the prompt with each option."""
    return [example.prompt.rstrip(" "), *(join(example.prompt, option) for option in example.options)]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
