"""The journal of a run: a line per step, from which the trajectory can be taken again without a query.

    {"step": 0, "seed": 0, "slopes": [1.25], "loss": 0.69, "lr": 0.007, "atom": 0, "spent": {...}, "sum": "..."}

`seed` and `step` name the direction, `slopes`, `curvature` and `lr` the update along it. `center_loss`, `flipped_mean`
and `sigma2` are what was measured besides, `spent` is the ledger after the step. `sum` is a hash of the line and of the
`sum` before it, the first one of the run's id: a line that was changed, left out, moved or brought from elsewhere does
not fit.

A line is handed to the system as a whole before the next step begins. What ends the process may leave a torn last line,
which is dropped, and with it at most the step that was being taken. Any other line that does not fit is refused.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from zo_runner.errors import Fault
from zo_runner.records.atomic_files import writing
from zo_runner.records.json_files import decode, encode

NAME = "journal.jsonl"

_SUM = b', "sum": "'
_DIGITS = 16


@dataclass(frozen=True)
class Line:
    """One whole line.

    Attributes:
        row: what it says.
        sum: its place in the chain.
        end: bytes of the file up to its end.
    """

    row: dict[str, Any]
    sum: str
    end: int


class Journal:
    """Writes the lines of a run.

    Args:
        file: journal.jsonl.
        run_id: of the run, with which the chain begins.
        after: the line to go on after; whatever follows it is cut off. None to begin.
    """

    def __init__(self, file: Path, run_id: str, after: Line | None = None) -> None:
        self.file, self.sum = file, after.sum if after else first_sum(run_id)
        with writing(file):
            self._stream: BinaryIO = file.open("ab")
            self._stream.truncate(after.end if after else 0)

    def append(self, row: dict[str, Any]) -> None:
        """Add one line.

        Raises:
            Fault: it cannot be written, or somebody has removed the file.
        """
        body = json.dumps(encode(row), allow_nan=False).encode()
        self.sum = next_sum(self.sum, body)
        with writing(self.file):
            self._stream.write(body[:-1] + _SUM + self.sum.encode() + b'"}\n')
            self._stream.flush()
            # What is written to a file that was removed is lost without a word.
            os.stat(self.file)

    def sync(self) -> None:
        """Let what was written outlive the machine."""
        with writing(self.file):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read(file: Path, run_id: str) -> Iterator[Line]:
    """The whole lines of a journal, in order.

    Raises:
        Fault: there is none, or a line other than the last does not fit.
    """
    if not file.is_file():  # a pipe would be waited for
        raise Fault(f"Cannot read {file}: no file.")
    with file.open("rb") as stream:
        chain, end = first_sum(run_id), 0
        torn: int | None = None
        for number, text in enumerate(stream, start=1):
            if torn is not None:
                raise Fault(f"Line {torn} of {file} was changed, or lines before it are missing.")
            body, _, rest = text.rpartition(_SUM)
            chain = next_sum(chain, body + b"}")
            if rest != chain.encode() + b'"}\n':
                torn = number
                continue
            end += len(text)
            yield Line(decode(json.loads(body + b"}")), chain, end)


def first_sum(run_id: str) -> str:
    """Where the chain of a run begins."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:_DIGITS]


def next_sum(before: str, body: bytes) -> str:
    """The `sum` of a line.

    Args:
        before: the `sum` of the line before.
        body: the line without its own.
    """
    return hashlib.sha256(before.encode() + body).hexdigest()[:_DIGITS]
