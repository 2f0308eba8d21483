"""Language modelling: every document is a text to learn, without a prompt."""

from typing import Any

from zo_runner.tasks.base import Example, Scoring
from zo_runner.tasks.family import Family
from zo_runner.tasks.rows import DataRow


class Text(Family):
    """Documents of plain text.

    Args:
        max_length: longest piece that a document is read in, in tokens; None for what the model can take.
        data: `format` and what that source takes, see `sources`; its rows have a column `text`.
    """

    def __init__(self, *, max_length: int | None, **data: Any) -> None:
        scoring = Scoring(loss="answer", metrics=("perplexity",), max_length=max_length)
        super().__init__(scoring, None, data)

    def _example(self, row: DataRow) -> Example:
        return Example("", (str(row.require("text", "a text")),))
