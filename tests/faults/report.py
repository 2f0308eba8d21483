"""Cases and failures of one kind of fault."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Part:
    """One kind of fault.

    Attributes:
        name: of the kind.
        cases: faults that were injected.
        failures: one sentence each.
        counts: what else was counted or measured.
        skipped: the reason why it was left out; empty if it was not.
        seconds: wall clock of the function that made it.
    """

    name: str
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    seconds: float = 0.0

    def check(self, holds: bool, failure: str) -> None:
        """Count a case, with its failure unless it holds."""
        self.case([] if holds else [failure])

    def case(self, failures: Sequence[str], counted: str = "") -> None:
        """Count a case with its failures, also under a name if one is given."""
        self.cases += 1
        if counted:
            self.counts[counted] = self.counts.get(counted, 0) + 1
        self.fail(failures)

    def fail(self, failures: Sequence[str]) -> None:
        """Add failures and print them at once."""
        self.failures += failures
        for failure in failures:
            print(f"FAILED {self.name}: {failure}", file=sys.stderr, flush=True)


def carry_out(functions: Sequence[Callable[[], list[Part]]]) -> list[Part]:
    """Call each function and print its parts. An exception is a failure of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary folders and mounts are cleaned up
    made = []
    for function in functions:
        start = time.monotonic()
        try:
            parts = function()
        except Exception:
            parts = [Part("a broken test")]
            parts[0].case([traceback.format_exc()])
        for part in parts:
            part.seconds = round(time.monotonic() - start, 1)
            print(f"{part.name}: {part.cases} cases, {len(part.failures)} failures, {part.seconds:.0f} s")
            for key, value in part.counts.items():
                print(f"  {key}: {value}")
            if part.skipped:
                print(f"  skipped: {part.skipped}")
            sys.stdout.flush()
        made += parts
    return made
