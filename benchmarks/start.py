"""What a process costs before it trains: imports, help, a run that is there already, and one that is not.

Every measurement is a process of its own, timed from outside, and with a warm disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Each of these imports what stands above it.
IMPORTS = {
    "python": "pass",
    "+ torch": "import torch",
    "+ transformers": "import transformers.modeling_utils",
    "+ peft": "import peft",
    "+ zo-run": "import zo_runner.jobs.train",
}
RUN = ("tracker=none", "budget.queries=20", "budget.eval_every=20")

HELP, CACHED, NEW = "zo-run --help", "a run that is there", "a run, less its training and evaluation"


@dataclass(frozen=True)
class Start:
    """One kind of process.

    Attributes:
        what: is started.
        seconds: wall clock, of every round.
    """

    what: str
    seconds: list[float]


def starts(rounds: int) -> Iterator[Start]:
    """Start every kind of process some times."""
    for what, code in IMPORTS.items():
        yield Start(what, _rounds(rounds, ["-c", code]))
    command = ["-m", "zo_runner.cli"]
    yield Start(HELP, _rounds(rounds, [*command, "--help"]))
    cached, new = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="zo-start-") as root:
            run = [*command, *RUN, f"runtime.root={root}"]
            whole = _seconds(run)
            (file,) = Path(root).glob("*/*/*/*/result.json")
            spent = json.loads(file.read_text(encoding="utf-8"))["seconds"]
            new.append(whole - sum(seconds for phase, seconds in spent.items() if phase != "total"))
            cached.append(_seconds(run))
    yield Start(CACHED, cached)
    yield Start(NEW, new)


def _rounds(rounds: int, words: Sequence[str]) -> list[float]:
    _seconds(words)  # reads the disk
    return [_seconds(words) for _ in range(rounds)]


def _seconds(words: Sequence[str]) -> float:
    """Wall clock of a Python process with one thread and no network."""
    known = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], env=known, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
