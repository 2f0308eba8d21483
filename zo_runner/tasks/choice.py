"""Multiple choice: every row brings its own options, and the model picks the one that best continues the prompt."""

from collections.abc import Sequence
from typing import Any

from zo_runner.errors import UserError, invalid
from zo_runner.tasks.base import Example, Loss, Scoring, Template
from zo_runner.tasks.family import Family, Fragment, check_loss, filled, null_prompt, null_template_of
from zo_runner.tasks.rows import DataRow
from zo_runner.tasks.sources import Hub


class MultipleChoice(Family):
    """Options per row, of which one or more are right.

    Args:
        template: prompt with `{field}` places; an option follows it after one space, or directly where the template
            ends in a line break.
        options: a template per option, or the name of a column that holds a list of texts.
        label_field: column of the right option's number, from 0, or of a list of such numbers.
        null_template: the prompt without what a row says, for calibration; None for none.
        calibrate: whether a choice is weighed against the null prompt's.
        prepare: name of the function that prepares a row, see `prepare`; None for none.
        loss: "answer", cross-entropy of the right option's tokens, or "options", cross-entropy over the options.
        max_length: longest prompt and option together, in tokens; None for what the model can take.
        data: `format` and what that source takes, see `sources`.

    Raises:
        UserError: a malformed template, fewer than two options.
    """

    def __init__(
        self,
        *,
        template: str,
        options: Sequence[str] | str,
        label_field: str,
        null_template: str | None,
        calibrate: bool,
        prepare: str | None,
        loss: Loss,
        max_length: int | None,
        **data: Any,
    ) -> None:
        self.template = Template(template)
        self.options = options if isinstance(options, str) else [Fragment(text, "task.options") for text in options]
        if not isinstance(self.options, str) and len(self.options) < 2:
            raise invalid("task.options", options, "at least two templates, or the name of a column with a list")
        check_loss(loss, ("answer", "options"))
        scoring = Scoring(loss=loss, metrics=("accuracy",), calibrate=calibrate, max_length=max_length)
        self.null_template = null_template_of(null_template, calibrate=calibrate)
        self.label_field = label_field
        super().__init__(scoring, prepare, data)

    def _example(self, row: DataRow) -> Example:
        prompt, texts = filled(self.template, row), self._texts(row)
        # An option that stands there twice is one option, under the number of the first.
        options = list(dict.fromkeys(texts))
        # A published data set is taken as it is: an article of ReCoRD may name a single entity.
        if len(options) < (1 if isinstance(self.source, Hub) else 2):
            raise UserError(f"Invalid options at {row.place}: {options}. Must be at least two different texts.")
        correct = dict.fromkeys(options.index(texts[number]) for number in self._correct(row, len(texts)))
        return Example(prompt, tuple(options), tuple(correct), null_prompt(self.null_template, row))

    def _texts(self, row: DataRow) -> list[str]:
        if isinstance(self.options, str):
            found = row.require(self.options, "the list that task.options names")
            if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
                raise UserError(f"Invalid options at {row.place}: {found!r}. Must be a list of texts.")
        else:
            found = [filled(option, row, "task.options") for option in self.options]
        texts = [text.strip() for text in found]
        if not all(texts):
            raise UserError(f"Invalid options at {row.place}: {texts}. Must be texts, none of them empty.")
        return texts

    def _correct(self, row: DataRow, count: int) -> list[int]:
        label = row.require(self.label_field, "the key that task.label_field names")
        numbers = [_number(value) for value in (label if isinstance(label, list) else [label])]
        found = [number for number in numbers if number is not None and 0 <= number < count]
        if not found or len(found) < len(numbers):
            allowed = f"the number of an option, from 0 to {count - 1}, or a list of such numbers"
            raise UserError(f"Invalid label at {row.place}: {label!r}. Must be {allowed}.")
        return found


def _number(value: object) -> int | None:
    """An option's number, or a text of digits, which is what a CSV file has; a truth value is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if type(value) is int else None
