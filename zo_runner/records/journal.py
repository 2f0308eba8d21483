"""The journal of a run: a line per step, from which the trajectory can be taken again without a query.

    {"step": 0, "seed": 0, "slopes": [1.25], "loss": 0.69, "lr": 0.007, "atom": 0, "spent": {...}, "sum": 2768625435}

`seed` and `step` name the direction, `slopes`, `curvature` and `lr` the update along it. `center_loss`, `flipped_mean`
and `sigma2` were measured besides, `spent` is the ledger after the step. `sum` is the CRC-32 of the run's id and of all
lines up to this one, without their sums: a line that was changed, left out, moved or copied from another run does not
fit.

A line is handed to the system as a whole before the next step begins. A kill may leave a torn last line, which is
dropped, and with it at most the step in flight. Any other line that does not fit is refused.
"""

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from zo_runner.errors import Fault
from zo_runner.records.atomic_files import writing
from zo_runner.records.json_files import decode, encode

NAME = "journal.jsonl"

_SUM = b', "sum": '


@dataclass(frozen=True)
class Line:
    """One whole line.

    Attributes:
        row: the values of a step.
        sum: CRC-32 of the run's id and of all lines up to this one.
        end: bytes of the file up to the end of the line.
    """

    row: dict[str, Any]
    sum: int
    end: int


class Journal:
    """Append the steps of a run to its journal.

    Args:
        file: journal.jsonl.
        run_id: id of the run, with which the sums begin.
        after: the line to continue after; whatever follows it is cut off. None to begin.
    """

    def __init__(self, file: Path, run_id: str, after: Line | None = None) -> None:
        self.file, self.sum = file, after.sum if after else zlib.crc32(run_id.encode())
        with writing(file):
            self._stream: BinaryIO = file.open("ab")
            self._stream.truncate(after.end if after else 0)

    def append(self, row: dict[str, Any]) -> None:
        """Add one line.

        Raises:
            Fault: the file cannot be written, or was removed.
        """
        body = json.dumps(encode(row), allow_nan=False).encode()
        self.sum = zlib.crc32(body, self.sum)
        with writing(self.file):
            self._stream.write(body[:-1] + _SUM + b"%d}\n" % self.sum)
            self._stream.flush()
            # The system accepts writes to a removed file, and loses them.
            os.stat(self.file)

    def sync(self) -> None:
        """Flush the file to disk, so that it survives a crash of the machine."""
        with writing(self.file):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read(file: Path, run_id: str) -> Iterator[Line]:
    """The whole lines of a journal, in order.

    Raises:
        Fault: there is no file, or a line other than the last does not fit.
    """
    if not file.is_file():
        raise Fault(f"Cannot read {file}: no file.")
    with file.open("rb") as stream:
        crc, end = zlib.crc32(run_id.encode()), 0
        torn: int | None = None
        for number, text in enumerate(stream, start=1):
            if torn is not None:
                raise Fault(f"Line {torn} of {file} was changed, or lines before it are missing.")
            body, _, rest = text.rpartition(_SUM)
            crc = zlib.crc32(body + b"}", crc)
            if rest != b"%d}\n" % crc:
                torn = number
                continue
            end += len(text)
            yield Line(decode(json.loads(body + b"}")), crc, end)
