"""A person's own files: JSON lines, CSV, plain text."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from zo_runner.errors import UserError, invalid
from zo_runner.tasks.files import SPLITS, read_text, sha256, split_files
from zo_runner.tasks.rows import DataRow, Rows


class Jsonl:
    """A person's own data: train.jsonl, dev.jsonl and test.jsonl in one folder, one JSON object per line.

    Args:
        path: the folder.
    """

    only_text = False
    suffix, holds = "jsonl", "one JSON object"

    def __init__(self, *, path: str | None) -> None:
        if path is None:
            split_files(path, self.suffix)
        self.path = path

    def load(self, seed: int) -> Rows:
        """The three files as they are, in file order; the data stream has nothing to choose.

        Raises:
            UserError: a missing, empty or unreadable file, or a bad row, with file and line.
        """
        files = split_files(self.path, self.suffix)
        rows = {name: list(self.rows(file)) for name, file in files.items()}
        for name, file in files.items():
            if not rows[name]:
                raise UserError(f"Invalid {file}: no rows. Must hold at least {self.holds}.")
        return Rows(**rows, files={file.name: sha256(file) for file in files.values()})

    def rows(self, file: Path) -> Iterator[DataRow]:
        """The rows of one file."""
        for number, line in enumerate(read_text(file).split("\n"), 1):
            if line.strip():
                yield _json_row(line, f"{file}:{number}")


class Csv(Jsonl):
    """A person's own data: train.csv, dev.csv and test.csv in one folder, with commas and a header row."""

    only_text = True
    suffix, holds = "csv", "one row below the header"

    def rows(self, file: Path) -> Iterator[DataRow]:
        """The rows of one file; all values are text."""
        reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
        start = 1
        try:
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise UserError(f"Invalid {file}:1: {', '.join(names)}. Must be a header of different names.")
            start = reader.line_num + 1
            for cells in reader:
                place, start = f"{file}:{start}", reader.line_num + 1
                if not cells:  # a blank line
                    continue
                if len(cells) != len(names):
                    raise UserError(f"Invalid row at {place}: {len(cells)} cells. Must be {len(names)}, as the header.")
                yield DataRow(dict(zip(names, cells, strict=True)), place)
        except csv.Error as error:
            raise UserError(f"Invalid row at {file}:{start}: {error}. Must be comma-separated values.") from None


class TextFiles:
    """Plain text: train.txt, dev.txt and test.txt in one folder, or one file that is cut 80 : 10 : 10.

    A document is a paragraph, ended by a blank line, or a line where no file has a blank line between two lines. One
    file is cut by position: a document that begins in the first 80 % of the text is train, in the next 10 % dev.

    Args:
        path: the folder or the file.
    """

    only_text = True
    CUTS = (0.8, 0.9)

    def __init__(self, *, path: str | None) -> None:
        if path is None:
            raise invalid("task.path", path, "a text file, or a folder holding train.txt, dev.txt, test.txt")
        self.path = Path(path).expanduser()

    def load(self, seed: int) -> Rows:
        """The text in its own order; the data stream has nothing to choose.

        Raises:
            UserError: a missing or unreadable file, a part without text.
        """
        if self.path.is_file():
            files = dict.fromkeys(SPLITS, self.path)
            parts = self._cut(documents([read_text(self.path)])[0])
        else:
            files = split_files(str(self.path), "txt")
            parts = documents([read_text(file) for file in files.values()])
        for name, part, file in zip(SPLITS, parts, files.values(), strict=True):
            if not part:
                allowed = "enough paragraphs, or lines, to cut 80 : 10 : 10" if self.path.is_file() else "some"
                raise UserError(f"Invalid {file}: no text for {name}. Must hold {allowed}.")
        rows = {
            name: [DataRow({"text": text}, f"{file}:{line}") for line, text in part]
            for (name, file), part in zip(files.items(), parts, strict=True)
        }
        return Rows(**rows, files={file.name: sha256(file) for file in dict.fromkeys(files.values())})

    def _cut(self, found: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
        parts: list[list[tuple[int, str]]] = [[], [], []]
        total, before = sum(len(text) for _, text in found), 0
        for line, text in found:
            parts[sum(before >= cut * total for cut in self.CUTS)].append((line, text))
            before += len(text)
        return parts


def documents(texts: Sequence[str]) -> list[list[tuple[int, str]]]:
    """The documents of each text, with the number of the line on which they begin.

    Paragraphs, or lines where no text has two paragraphs.
    """
    paragraphs = [_blocks(text) for text in texts]
    if any(len(found) > 1 for found in paragraphs):
        return paragraphs
    return [[(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()] for text in texts]


def _blocks(text: str) -> list[tuple[int, str]]:
    blocks: list[tuple[int, str]] = []
    lines = list(enumerate(text.split("\n"), 1))
    for filled, group in itertools.groupby(lines, lambda line: bool(line[1].strip())):
        if filled:
            block = list(group)
            blocks.append((block[0][0], "\n".join(line for _, line in block)))
    return blocks


def _json_row(line: str, place: str) -> DataRow:
    try:
        values = json.loads(line)
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()  # no NaN, no half of a surrogate pair
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"Invalid row at {place}: {line[:40]!r}. Must be one JSON object of text and finite numbers.")
    return DataRow(values, place)
