"""Tasks: prompts, the texts that may follow them, and the scoring of the model's choice."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from zo_runner.errors import invalid

Loss = Literal["options", "answer", "f1"]


@dataclass(frozen=True)
class Example:
    """One rendered example.

    Attributes:
        prompt: what the model reads first; empty for plain text.
        options: the texts that may follow it: the label words, the choices, or the one text to learn. They follow
            after one space, or directly where the prompt is empty or ends in white space that is not a space.
        correct: indices of the right options; the first of them is the one that is trained on.
        null_prompt: the prompt without what this example says, for calibration; None where the task has none.
        answers: gold answers of a generation task, each a tuple of spans.
    """

    prompt: str
    options: tuple[str, ...]
    correct: tuple[int, ...] = (0,)
    null_prompt: str | None = None
    answers: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set. dev selects, test is read once at the end.

    Attributes:
        train: examples that are learnt from.
        dev: examples that select.
        test: examples that are reported.
        files: sha256 of every data file that was read, by its name, or of the rows that were generated.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """Loss and metrics of a task's examples.

    Attributes:
        loss: "options": cross-entropy over the options' length-normalised log-probabilities; "answer": token
            cross-entropy of the first right option; "f1": 1 - token F1 of the generated answer, which has no gradient.
        metrics: what dev and test report; the first selects.
        calibrate: whether a choice weighs log p(option | prompt) - log p(option | null prompt), summed over tokens,
            and not the mean of log p(option | prompt).
        single_token: whether every option must be one token of its own.
        max_length: longest prompt and option together, in tokens; None for what the model can take.
        max_new_tokens: longest generated answer.
        stop: texts that end a generated answer.

    Raises:
        UserError: a length below 1.
    """

    loss: Loss
    metrics: tuple[str, ...]
    calibrate: bool = False
    single_token: bool = False
    max_length: int | None = None
    max_new_tokens: int = 50
    stop: tuple[str, ...] = ("\n",)

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise invalid("task.max_length", self.max_length, ">= 1, or null for what the model can take")
        if self.max_new_tokens < 1:
            raise invalid("task.max_new_tokens", self.max_new_tokens, ">= 1")


class Task(Protocol):
    """A source of examples, and how they are scored."""

    scoring: Scoring

    def load(self, seed: int) -> Splits:
        """The splits that the data stream `seed` selects."""
        ...


class Template:
    """A prompt with `{field}` places, filled from a row by name only.

    Args:
        text: such as "{premise} Therefore {hypothesis}". Doubled braces stand for themselves.
        key: configuration key, for messages.

    Raises:
        UserError: no field, or anything but plain field names (`{a.b}`, `{a[0]}`, `{a!r}` and `{a:>9}` could reach
            beyond the row).
    """

    def __init__(self, text: str, key: str = "task.template") -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError:
            raise invalid(key, text, "text with {field} places and matching braces") from None
        self.fields = [name for _, name, _, _ in parts if name is not None]
        plain = all(
            name.isidentifier() and not spec and not conversion
            for _, name, spec, conversion in parts
            if name is not None
        )
        if not self.fields or not plain:
            raise invalid(key, text, "text with at least one plain {field} place")
        self.text = text

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt of one row.

        Raises:
            KeyError: the row lacks a field of the template.
        """
        return self.text.format_map({name: str(row[name]).strip() for name in self.fields})
