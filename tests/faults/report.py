"""What a part of the fault suite found."""

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zo_runner.records.atomic_files import write_atomic


@dataclass
class Part:
    """One kind of fault.

    Attributes:
        name: of the kind.
        cases: faults that were put in.
        failures: in words, one each; none is what there should be.
        counts: what else was counted or measured.
        skipped: why it was left out; empty if it was not.
        seconds: wall clock, of all parts that were made together.
    """

    name: str
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    seconds: float = 0.0

    def check(self, holds: bool, what: str) -> None:
        """Count a case; note it if it failed."""
        self.case([] if holds else [what])

    def case(self, failures: Sequence[str], counted: str = "") -> None:
        """Count a case, under a name if it has one, and note how it failed."""
        self.cases += 1
        if counted:
            self.counts[counted] = self.counts.get(counted, 0) + 1
        self.fail(failures)

    def fail(self, failures: Sequence[str]) -> None:
        """Note failures, and say them at once."""
        self.failures += failures
        for failure in failures:
            print(f"FAILED {self.name}: {failure}", file=sys.stderr, flush=True)


def write(parts: Sequence[Callable[[], Part | list[Part]]], file: Path | None) -> None:
    """Carry out the parts, print what they found, and leave with 1 if anything failed.

    Args:
        parts: in order; each makes one part, or several at once.
        file: gets all of it as JSON.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was begun is cleaned up
    made = []
    for carry_out in parts:
        start = time.monotonic()
        found = carry_out()
        seconds = round(time.monotonic() - start, 1)
        for part in found if isinstance(found, list) else [found]:
            part.seconds = seconds
            made.append(part)
            _show(part)
    if file is not None:
        write_atomic(file, json.dumps([asdict(part) for part in made], indent=2) + "\n")
    sys.exit(any(part.failures for part in made))


def _show(part: Part) -> None:
    print(f"{part.name}: {part.cases} cases, {len(part.failures)} failures, {part.seconds:.0f} s")
    for key, value in part.counts.items():
        print(f"  {key}: {value}")
    if part.skipped:
        print(f"  skipped: {part.skipped}")
    sys.stdout.flush()
