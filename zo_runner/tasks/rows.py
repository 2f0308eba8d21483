"""Rows of a data set with their places, before a task makes examples of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zo_runner.errors import UserError
from zo_runner.tasks.base import Example, Splits


@dataclass(frozen=True)
class DataRow:
    """One row of a data set.

    Attributes:
        values: by column.
        place: where it stands, for messages: "file:line", or "train[7]" for the row of number 7, counted from 0.
    """

    values: Mapping[str, Any]
    place: str

    def require(self, name: str, needed: str) -> Any:
        """The value of a column.

        Args:
            name: of the column.
            needed: what it is needed for; completes "Must have ...".

        Raises:
            UserError: no such column, or nothing in it.
        """
        value = self.values.get(name)
        if value is None:
            raise self.refused(f"no {name!r}", f"have {needed}")
        return value

    def refused(self, problem: str, allowed: str) -> UserError:
        """A message that names the place, the problem and the columns that the row has."""
        has = ", ".join(key for key, value in self.values.items() if value is not None)
        return UserError(f"Invalid row at {self.place}: {problem}. Must {allowed}; it has: {has or 'nothing'}.")


@dataclass(frozen=True)
class Rows:
    """The rows of the three parts, and sha256 of every file that was read, or of what was generated."""

    train: list[DataRow]
    dev: list[DataRow]
    test: list[DataRow]
    files: Mapping[str, str] = field(default_factory=dict)

    def examples(self, make: Callable[[DataRow], Example]) -> Splits:
        """Every row made an example."""
        train, dev, test = ([make(row) for row in part] for part in (self.train, self.dev, self.test))
        return Splits(train, dev, test, self.files)
