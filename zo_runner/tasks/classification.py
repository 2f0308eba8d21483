"""Verbalizer classification: the model picks the label word that best continues the prompt."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zo_runner.assets.grammar import TASKS, task_examples
from zo_runner.errors import UserError, invalid, one_of
from zo_runner.seeds import fold_in
from zo_runner.tasks.base import Example, Splits, Template

SPLITS = ("train", "dev", "test")


class Verbalizer:
    """What all verbalizer tasks share.

    Args:
        template: prompt with `{field}` places; the label word follows it after one space, or directly where the
            template ends in a line break.
        label_words: one word per label, in label order.
        max_length: longest prompt in tokens; longer ones lose tokens after a BOS and keep their end.

    Raises:
        UserError: a malformed template, fewer than two or repeated label words.
    """

    def __init__(self, *, template: str, label_words: Sequence[str], max_length: int) -> None:
        self.template = Template(template)
        self.label_words = list(label_words)
        self.max_length = max_length
        # An unquoted yes or no in YAML is a truth value.
        if not all(isinstance(word, str) for word in self.label_words):
            raise invalid("task.label_words", self.label_words, "words, quoted where YAML would read something else")
        if len(self.label_words) < 2 or len(set(self.label_words)) != len(self.label_words):
            raise invalid("task.label_words", self.label_words, "at least two different words")
        if max_length < 1:
            raise invalid("task.max_length", max_length, ">= 1")


class PocketTask(Verbalizer):
    """A task drawn from the embedded grammar.

    train and dev are drawn by the run's data stream, test is the same for everyone.

    Args:
        grammar: "sentiment" or "entailment".
        template: as in `Verbalizer`.
        label_words: as in `Verbalizer`.
        max_length: as in `Verbalizer`.
        num_train: number of training examples.
        num_dev: number of dev examples.
        num_test: number of test examples.
    """

    TEST_SEED = 20_260_519
    POOL_SEED = 20_260_520

    def __init__(
        self,
        *,
        grammar: str,
        template: str,
        label_words: Sequence[str],
        max_length: int,
        num_train: int,
        num_dev: int,
        num_test: int,
    ) -> None:
        super().__init__(template=template, label_words=label_words, max_length=max_length)
        for name, count in (("num_train", num_train), ("num_dev", num_dev), ("num_test", num_test)):
            if count < 1:
                raise invalid(f"task.{name}", count, ">= 1")
        if grammar not in TASKS:
            raise invalid("task.grammar", grammar, one_of(TASKS))
        self.grammar, self.num_train, self.num_dev, self.num_test = grammar, num_train, num_dev, num_test

    def load(self, seed: int) -> Splits:
        """train and dev are disjoint parts of one shuffled pool that shares no row with test."""
        needed = self.num_train + self.num_dev
        try:
            test = [self._example(row) for row in task_examples(self.grammar, self.num_test, self.TEST_SEED)]
            # At most num_test of them stand in test.
            drawn = [self._example(r) for r in task_examples(self.grammar, needed + self.num_test, self.POOL_SEED)]
        except ValueError:
            allowed = "few enough, with num_dev and num_test, for the sentences of the grammar"
            raise invalid("task.num_train", self.num_train, allowed) from None
        in_test = set(test)
        pool = [example for example in drawn if example not in in_test]
        random.Random(fold_in(seed, "data")).shuffle(pool)
        return Splits(pool[: self.num_train], pool[self.num_train : needed], test)

    def _example(self, row: Mapping[str, Any]) -> Example:
        return Example(self.template.render(row), int(row["label"]))


class JsonlTask(Verbalizer):
    """Anybody's own data: a folder with train.jsonl, dev.jsonl and test.jsonl, one JSON object per line.

    Args:
        path: the folder.
        template: as in `Verbalizer`; its fields are keys of the rows.
        label_words: as in `Verbalizer`.
        label_field: key of the label.
        labels: the values that stand in the file, in the order of `label_words`; None for 0, 1, 2, ...
        max_length: as in `Verbalizer`.
    """

    def __init__(
        self,
        *,
        path: str | None,
        template: str,
        label_words: Sequence[str],
        label_field: str,
        labels: Sequence[Any] | None,
        max_length: int,
    ) -> None:
        super().__init__(template=template, label_words=label_words, max_length=max_length)
        self.label_field = label_field
        self.labels = list(range(len(self.label_words))) if labels is None else list(labels)
        if len(self.labels) != len(self.label_words) or len({_key(v) for v in self.labels}) != len(self.labels):
            raise invalid("task.labels", self.labels, f"{len(self.label_words)} different values, one per label word")
        if path is None:
            raise invalid("task.path", path, f"a folder holding {', '.join(f'{name}.jsonl' for name in SPLITS)}")
        self.path = Path(path)

    def load(self, seed: int) -> Splits:
        """The three files as they are, in file order; the data stream has nothing to choose.

        Raises:
            UserError: a missing, empty or unreadable file, or a bad row, with file and line.
        """
        return Splits(*(self._read(self.path / f"{name}.jsonl") for name in SPLITS))

    def _read(self, file: Path) -> list[Example]:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise invalid("task.path", str(self.path), f"a folder holding {file.name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Invalid {file}: {error}. Must be a readable UTF-8 file.") from None
        examples = [self._example(line, f"{file}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
        if not examples:
            raise UserError(f"Invalid {file}: no rows. Must hold at least one JSON object.")
        return examples

    def _example(self, line: str, where: str) -> Example:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"Invalid row at {where}: not JSON. Must be one JSON object per line.") from None
        if not isinstance(row, dict):
            raise UserError(f"Invalid row at {where}: {type(row).__name__}. Must be a JSON object.")
        for name in [*self.template.fields, self.label_field]:
            if row.get(name) is None:
                needed = (
                    "the key that task.label_field names"
                    if name == self.label_field
                    else "every field of task.template"
                )
                raise UserError(f"Invalid row at {where}: no {name!r}. Must have {needed}.")
        label = row[self.label_field]
        for index, value in enumerate(self.labels):
            if _key(label) == _key(value):
                return Example(self.template.render(row), index)
        raise UserError(f"Invalid label at {where}: {label!r}. Must be {one_of(self.labels)}.")


def _key(value: Any) -> tuple[str, str]:
    """Equality as JSON means it: 1 is not true and not "1"."""
    return type(value).__name__, json.dumps(value, sort_keys=True)
