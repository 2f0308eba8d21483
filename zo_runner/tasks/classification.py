"""Classification with a verbalizer: the model picks the label word that best continues the prompt."""

import json
from collections.abc import Sequence
from typing import Any

from zo_runner.errors import UserError, invalid, one_of
from zo_runner.tasks.base import Example, Loss, Scoring, Template
from zo_runner.tasks.family import Family, check_loss, filled, null_prompt, null_template_of
from zo_runner.tasks.rows import DataRow


class Classification(Family):
    """A label per row, and a word per label.

    Args:
        template: prompt with `{field}` places; the label word follows it after one space, or directly where the
            template ends in a line break.
        label_words: one word per label, in label order.
        label_field: column of the label.
        labels: the values that stand in the data, in the order of `label_words`; None for 0, 1, 2, ...
        null_template: the prompt without what a row says, for calibration; None for none.
        calibrate: whether a choice is weighed against the null prompt's.
        prepare: name of the function that prepares a row, see `prepare`; None for none.
        loss: "options", cross-entropy over the label words, or "answer", cross-entropy of the right word's tokens.
        single_token: whether every label word must be one token.
        max_length: longest prompt and word together, in tokens; None for what the model can take.
        data: `format` and what that source takes, see `sources`.

    Raises:
        UserError: a malformed template, fewer than two or repeated label words, labels of another number.
    """

    def __init__(
        self,
        *,
        template: str,
        label_words: Sequence[str],
        label_field: str,
        labels: Sequence[Any] | None,
        null_template: str | None,
        calibrate: bool,
        prepare: str | None,
        loss: Loss,
        single_token: bool,
        max_length: int | None,
        **data: Any,
    ) -> None:
        self.template = Template(template)
        self.label_words = list(label_words)
        # An unquoted yes or no in YAML is a truth value.
        if not all(isinstance(word, str) for word in self.label_words):
            raise invalid("task.label_words", self.label_words, "words, quoted where YAML would read something else")
        if len(self.label_words) < 2 or len(set(self.label_words)) != len(self.label_words):
            raise invalid("task.label_words", self.label_words, "at least two different words")
        check_loss(loss, ("options", "answer"))
        scoring = Scoring(
            loss=loss, metrics=("accuracy",), calibrate=calibrate, single_token=single_token, max_length=max_length
        )
        self.null_template = null_template_of(null_template, calibrate=calibrate)
        self.label_field = label_field
        self.labels = list(range(len(self.label_words))) if labels is None else list(labels)
        if len(self.labels) != len(self.label_words) or len({_key(v) for v in self.labels}) != len(self.labels):
            raise invalid("task.labels", self.labels, f"{len(self.label_words)} different values, one per label word")
        super().__init__(scoring, prepare, data)
        if self.source.only_text:  # a number typed in YAML is the text that stands in the file
            self.labels = [str(label) if type(label) is int else label for label in self.labels]

    def _example(self, row: DataRow) -> Example:
        prompt = filled(self.template, row)
        label = row.require(self.label_field, "the key that task.label_field names")
        for index, value in enumerate(self.labels):
            if _key(label) == _key(value):
                return Example(prompt, tuple(self.label_words), (index,), null_prompt(self.null_template, row))
        raise UserError(f"Invalid label at {row.place}: {label!r}. Must be {one_of(self.labels)}.")


def _key(value: Any) -> tuple[str, str]:
    """Equality as JSON means it: 1 is not true and not "1"."""
    return type(value).__name__, json.dumps(value, sort_keys=True, default=repr)
