"""What a task is: prompts, labels and the words that stand for them."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from zo_runner.errors import invalid


@dataclass(frozen=True)
class Example:
    """One rendered example.

    Attributes:
        prompt: the text that the label word follows.
        label: index into the task's label words.
    """

    prompt: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set. dev selects, test is read once at the end."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]


class Task(Protocol):
    """A source of examples for verbalizer classification."""

    label_words: list[str]
    max_length: int

    def load(self, seed: int) -> Splits:
        """The splits that the data stream `seed` selects."""
        ...


class Template:
    """A prompt with `{field}` places, filled from a row by name only.

    Args:
        text: such as "{premise} Therefore {hypothesis}". Doubled braces stand for themselves.

    Raises:
        UserError: no field, or anything but plain field names (`{a.b}`, `{a[0]}`, `{a!r}` and `{a:>9}` could reach
            beyond the row).
    """

    def __init__(self, text: str) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError:
            raise invalid("task.template", text, "text with {field} places and matching braces") from None
        self.fields = [name for _, name, _, _ in parts if name is not None]
        plain = all(
            name.isidentifier() and not spec and not conversion
            for _, name, spec, conversion in parts
            if name is not None
        )
        if not self.fields or not plain:
            raise invalid("task.template", text, "text with at least one plain {field} place")
        self.text = text

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt of one row.

        Raises:
            KeyError: the row lacks a field of the template.
        """
        return self.text.format_map({name: str(row[name]).strip() for name in self.fields})
