"""Base of the task families: templates filled from rows, and checks."""

import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from zo_runner.errors import UserError, invalid, one_of
from zo_runner.tasks.base import Example, Scoring, Splits, Template
from zo_runner.tasks.prepare import preparation
from zo_runner.tasks.rows import DataRow
from zo_runner.tasks.sources import source


class Family(ABC):
    """Rows from a source, each of which becomes an example.

    Args:
        scoring: how the examples are scored.
        prepare: name of the function that prepares a row, see `prepare`; None for none.
        data: `format` and what that source takes, see `sources`.
    """

    def __init__(self, scoring: Scoring, prepare: str | None, data: dict[str, Any]) -> None:
        self.scoring = scoring
        self.prepare = preparation(prepare)
        self.source = source(**data)

    def load(self, seed: int) -> Splits:
        """The splits that the data stream `seed` selects.

        Raises:
            UserError: files that cannot be read, a bad row.
        """
        return self.source.load(seed).examples(lambda row: self._example(self.prepare(row)))

    @abstractmethod
    def _example(self, row: DataRow) -> Example:
        """The example of a prepared row."""


class Fragment(Template):
    """As `Template`, but it may have no field at all: the same text for every row, even an empty one."""

    def __init__(self, text: str, key: str) -> None:
        self.text, self.fields = text, []
        if _may_have_fields(text):
            super().__init__(text, key)


def _may_have_fields(text: str) -> bool:
    try:
        return any(name is not None for _, name, _, _ in string.Formatter().parse(text))
    except ValueError:
        return True


def filled(template: Template, row: DataRow, key: str = "task.template") -> str:
    """A template with a row's values.

    Args:
        template: as it is configured.
        row: the values.
        key: configuration key of the template, for messages.

    Raises:
        UserError: the row lacks a field of the template, or has a list or an object there.
    """
    values = {name: row.require(name, f"every field of {key}") for name in template.fields}
    for name, value in values.items():
        if isinstance(value, list | dict):
            raise UserError(f"Invalid {name} at {row.place}: {value!r}. Must be a text or a number, for {key}.")
    return template.render(values)


def null_prompt(template: Template | None, row: DataRow) -> str | None:
    """The null prompt of a row, where a task has one.

    Raises:
        UserError: the row lacks a field of the template.
    """
    return None if template is None else filled(template, row, "task.null_template")


def null_template_of(text: str | None, *, calibrate: bool) -> Template | None:
    """The template of the null prompt, if there is one.

    Raises:
        UserError: there is none although `calibrate` needs it, or it is malformed.
    """
    if calibrate and text is None:
        raise invalid("task.calibrate", calibrate, "false, or task.null_template a text to weigh against")
    return None if text is None else Fragment(text, "task.null_template")


def check_loss(loss: str, allowed: Sequence[str]) -> None:
    """Check that a family has a loss.

    Raises:
        UserError: it does not.
    """
    if loss not in allowed:
        raise invalid("task.loss", loss, one_of(allowed))
