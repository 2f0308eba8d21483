"""Sources of a task's rows: the embedded grammar, the user's files, plain text, or the Hub. No torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from zo_runner.errors import invalid, one_of
from zo_runner.tasks import hub
from zo_runner.tasks.files import digest, hub_files, sha256
from zo_runner.tasks.local_files import Csv, Jsonl, TextFiles
from zo_runner.tasks.pocket_grammar import TASKS, task_examples
from zo_runner.tasks.rows import DataRow, Rows
from zo_runner.tasks.splits import RULES, Sizes, choose, random_stream


class Source(Protocol):
    """A source of rows.

    Attributes:
        only_text: whether every value is text, as in a CSV file.
    """

    only_text: bool

    def load(self, seed: int) -> Rows:
        """The rows that the data stream `seed` selects."""
        ...


def source(*, format: str, **data: Any) -> Source:
    """The source of a format, with its own arguments.

    Raises:
        UserError: an unknown format, a bad argument.
        TypeError: an argument that this format does not have, or one too few.
    """
    if format not in FORMATS:
        raise invalid("task.format", format, one_of(FORMATS))
    return FORMATS[format](**data)


class Grammar:
    """Rows of the embedded grammar: train and dev by the data stream, test the same for everyone.

    Args:
        grammar: "sentiment" or "entailment".
        num_train: number of training examples.
        num_dev: number of dev examples.
        num_test: number of test examples.
    """

    TEST_SEED = 20_260_519
    POOL_SEED = 20_260_520
    only_text = False

    def __init__(self, *, grammar: str, num_train: int, num_dev: int, num_test: int) -> None:
        self.sizes = Sizes(num_train, num_dev, num_test)
        if grammar not in TASKS:
            raise invalid("task.grammar", grammar, one_of(TASKS))
        self.grammar = grammar

    def load(self, seed: int) -> Rows:
        """train and dev are disjoint parts of one shuffled pool that shares no row with test."""
        sizes, needed = self.sizes, self.sizes.num_train + self.sizes.num_dev
        try:
            test = task_examples(self.grammar, sizes.num_test, self.TEST_SEED)
            # At most num_test of them stand in test.
            drawn = task_examples(self.grammar, needed + sizes.num_test, self.POOL_SEED)
        except ValueError:
            allowed = "few enough, with num_dev and num_test, for the sentences of the grammar"
            raise invalid("task.num_train", sizes.num_train, allowed) from None
        in_test = {tuple(row.items()) for row in test}
        pool = [row for row in drawn if tuple(row.items()) not in in_test]
        random_stream(seed, "data").shuffle(pool)
        train, dev = pool[: sizes.num_train], pool[sizes.num_train : needed]
        # Of all rows before the data stream chooses, so that every seed has the same.
        files = {f"generated/{self.grammar}": digest([*drawn, *test])}
        return Rows(_numbered("train", train), _numbered("dev", dev), _numbered("test", test), files)


class Hub:
    """A dataset of the Hugging Face Hub, or a local copy of its repository.

    Args:
        dataset: such as "aps/super_glue".
        config: name of the subset; None where there is one only.
        revision: commit, 40 hexadecimal digits; not looked at where `path` is given.
        path: a local copy of the repository; then nothing is downloaded.
        split: "stream" or "mezo", see `splits.choose`.
        num_train: number of training examples, of the dataset's train split.
        num_dev: number of dev examples, of the same.
        num_test: number of test examples, of the dataset's validation split.
    """

    only_text = False

    def __init__(
        self,
        *,
        dataset: str | None,
        config: str | None,
        revision: str | None,
        path: str | None,
        split: str,
        num_train: int,
        num_dev: int,
        num_test: int,
    ) -> None:
        if split not in RULES:
            raise invalid("task.split", split, one_of(RULES))
        self.sizes = Sizes(num_train, num_dev, num_test)
        if path is None:
            hub.check(dataset, revision)
        self.dataset, self.config, self.revision, self.path, self.split = dataset, config, revision, path, split

    def load(self, seed: int) -> Rows:
        """The rows that the data stream chooses.

        Raises:
            UserError: the files are not there, cannot be read, or have too few rows.
        """
        if self.path is None:
            folder = hub.find(self.dataset, self.revision, self.config)
        else:
            folder = Path(self.path).expanduser()
        files = hub_files(folder, self.config)
        chosen = choose(self.split, seed, self.sizes, hub.count(files["train"]), hub.count(files["validation"]))
        drawn = hub.rows(files["train"], [*chosen.train, *chosen.dev])
        cut = len(chosen.train)
        return Rows(
            _numbered("train", drawn[:cut], chosen.train),
            _numbered("train", drawn[cut:], chosen.dev),
            _numbered("validation", hub.rows(files["validation"], chosen.test), chosen.test),
            {file.relative_to(folder).as_posix(): sha256(file) for part in files.values() for file in part},
        )


FORMATS: Mapping[str, Callable[..., Source]] = {
    "grammar": Grammar,
    "jsonl": Jsonl,
    "csv": Csv,
    "text": TextFiles,
    "hub": Hub,
}


def _numbered(split: str, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int] | None = None) -> list[DataRow]:
    """Rows with their place; their numbers in the split are 0, 1, 2, ... unless given."""
    numbers = range(len(rows)) if numbers is None else numbers
    return [DataRow(values, f"{split}[{number}]") for number, values in zip(numbers, rows, strict=True)]
