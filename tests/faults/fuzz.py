"""Broken input of every kind, thousands of times: what is not accepted is refused in one line.

    python -m tests.faults.fuzz [--cases N] [--seed S] [--only WORD] [--json FILE]

A case passes where what it gives is read as what it is, or refused in one line. It fails with any other exception, with
a result that is not the right one, and when there is no answer for twenty seconds: then the smallest such case that can
be found is printed, and the exit code is 1. The same seed gives the same cases.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.faults import fuzz_config, fuzz_runs, fuzz_saved, fuzz_tasks
from tests.faults.fuzz_kinds import Kind
from zo_runner.records.atomic_files import write_atomic
from zo_runner.reporting.tables.formats import markdown

# Far more than any case takes on a busy machine, and far less than for ever.
SECONDS = 20


class Failed(AssertionError):
    """A case that was neither accepted nor refused."""


def kinds(folder: Path) -> list[Kind]:
    """Everything that is fuzzed.

    Args:
        folder: an empty one to work in. Runs are made there.
    """
    parts = {"tasks": fuzz_tasks, "config": fuzz_config, "runs": fuzz_runs, "saved": fuzz_saved}
    return [kind for name, part in parts.items() for kind in part.kinds(folder / name)]


def fuzz(kind: Kind, cases: int, number: int) -> dict[str, Any]:
    """Check one kind, and return the line that the table has of it.

    Args:
        kind: what to check.
        cases: how many; fewer where there are fewer different ones.
        number: a seed.

    Raises:
        Failed: a case that fails, as small as it can be found.
    """
    counts = {True: 0, False: 0}
    last: list[Any] = []

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(kind.cases)
    def each(case: Any) -> None:
        last[:] = [case]
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts[kind.check(case)] += 1

    started = time.process_time()
    try:
        each()
    except Exception as error:  # whatever it is, it has got past the readers
        lines = traceback.format_exception(error)
        raise Failed(f"{kind.name}: {_short(repr(last[0]))}\n{_short(''.join(lines), 6_000)}") from None
    seconds = time.process_time() - started
    total = sum(counts.values())
    return {
        "input": kind.name,
        "cases": total,
        "accepted": counts[True],
        "refused": counts[False],
        "cpu_seconds": seconds,
    }


def main() -> None:
    """Fuzz every kind, print the table, write it down."""
    parser = argparse.ArgumentParser(description="Broken input, thousands of times.")
    parser.add_argument("--cases", type=int, default=12_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORD", help="kinds whose name holds it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the table")
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [kind for kind in kinds(Path(scratch)) if asked.only in kind.name]
        whole = sum(kind.share for kind in chosen)
        for kind in chosen:
            try:
                lines.append(fuzz(kind, round(asked.cases * kind.share / whole), asked.seed))
            except Failed as failure:
                sys.exit(str(failure))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    total = {key: sum(line[key] for line in lines) for key in ("cases", "accepted", "refused", "cpu_seconds")}
    print(table([*lines, {"input": "all", **total}]))
    if asked.json is not None:
        write_atomic(asked.json, json.dumps({"seed": asked.seed, "kinds": lines, **total}, indent=1) + "\n")


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as Markdown."""
    import pandas as pd

    return markdown(pd.DataFrame([{key: _cell(value) for key, value in line.items()} for line in lines]))


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _short(text: str, most: int = 1_000) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


class _Late(BaseException):
    """No answer in time. No reader catches it."""


@contextmanager
def _limited() -> Iterator[None]:
    """Give the block so many seconds.

    Raises:
        AssertionError: it took longer.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again, where it is raised in what ignores it
    try:
        yield
    except _Late:
        raise AssertionError(f"no answer in {SECONDS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
