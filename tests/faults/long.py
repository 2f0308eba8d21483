"""A very long run: neither the process nor what it writes per step may grow.

A real `zo-run` process trains a pocket model and is watched from outside: resident memory, and the sizes of the two
logs. Memory is compared between the first and the last tenth of the steps, after a twentieth to warm up.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.report import Part

# Allowed growth of the memory and of the bytes per step, as a share.
ALLOWED = 0.01

WARM_UP, SPAN = 0.05, 0.1

# Extra bytes per step that late steps may need for longer numbers: step, queries, seconds.
DIGITS = 24

# Seconds between looks.
INTERVAL = 0.25


@dataclass(frozen=True)
class Sample:
    """One look at a running process.

    Attributes:
        step: of its journal's last whole line.
        resident: bytes.
        logs: sizes in bytes, by name.
        at: seconds since it began.
    """

    step: int
    resident: int
    logs: dict[str, int]
    at: float


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """One long run."""
    return [partial(long_run, 1000 if quick else 200_000)]


def command(steps: int, root: Path) -> list[str]:
    """Train for at least `steps` steps with a hundred dev evaluations."""
    queries = steps * 2
    words = ["method=ar1zo", f"budget.queries={queries}", f"budget.eval_every={max(queries // 100, 1)}"]
    small = ["batch_size=1", "task.num_train=64", "task.num_dev=8", "task.num_test=8", "runtime.threads=1"]
    return [sys.executable, "-m", "zo_runner.cli", *words, *small, "tracker=none", f"runtime.root={root}"]


def sampled(words: list[str], root: Path) -> tuple[list[Sample], str]:
    """Run a command and sample it until it ends; the samples, and the output if it failed."""
    start, samples = time.monotonic(), []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    step = 0
    while process.poll() is None:
        time.sleep(INTERVAL)
        logs = {file.name: file.stat().st_size for file in root.glob("*/*/*/*/*.jsonl")}
        resident = _resident(process.pid)
        if "journal.jsonl" in logs and resident and (now := _last_step(root)) > step:
            step = now
            samples.append(Sample(step, resident, logs, time.monotonic() - start))
    said = process.communicate()[1]
    return samples, said if process.returncode else ""


def _resident(pid: int) -> int:
    """Bytes of a process in memory, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _last_step(root: Path) -> int:
    """The step of the journal's last whole line; 0 without one."""
    (file,) = root.glob("*/*/*/*/journal.jsonl")
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - 8192, 0))
        lines = stream.read().rpartition(b"\n")[0].splitlines()
    return int(lines[-1].partition(b":")[2].partition(b",")[0]) if lines else 0


def growth(samples: list[Sample], of: Callable[[Sample], float]) -> float:
    """The share by which the mean of the last tenth of the steps exceeds that of the first tenth after the warm-up."""
    first, last = ([of(sample) for sample in part] for part in tenths(samples))
    return statistics.fmean(last) / statistics.fmean(first) - 1


def tenths(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples of the first tenth of the steps after the warm-up, and those of the last."""
    steps = samples[-1].step
    first = [s for s in samples if WARM_UP * steps <= s.step <= (WARM_UP + SPAN) * steps]
    return first, [s for s in samples if s.step >= (1 - SPAN) * steps]


def bytes_per_step(samples: list[Sample], name: str) -> float:
    """Bytes that one step adds to a log, between the ends of a span."""
    first, last = samples[0], samples[-1]
    return (last.logs.get(name, 0) - first.logs.get(name, 0)) / max(last.step - first.step, 1)


def long_run(steps: int) -> list[Part]:
    """Memory and logs of one long run."""
    part = Part(f"{steps} steps of ar1zo", cases=1)
    with tempfile.TemporaryDirectory(prefix="zo-long-") as name:
        samples, failure = sampled(command(steps, Path(name)), Path(name))
    if failure:
        part.failures.append(failure[-800:])
        return [part]
    first, last = tenths(samples)
    if min(len(first), len(last)) < 2:
        part.failures.append(f"{len(samples)} samples are too few; take more steps")
        return [part]
    grown = growth(samples, lambda sample: sample.resident)
    seconds = samples[-1].at - samples[0].at
    part.counts = {
        "resident MB": round(statistics.fmean(s.resident for s in last) / 1e6, 1),
        "growth of it": f"{grown:+.3%}",
        "steps per second": round((samples[-1].step - samples[0].step) / seconds, 1),
        "samples": len(samples),
    }
    if grown >= ALLOWED:
        part.failures.append(f"the memory grows by {grown:.2%}")
    for log in ("journal.jsonl", "metrics.jsonl"):
        early, late = bytes_per_step(first, log), bytes_per_step(last, log)
        part.counts[f"bytes per step of {log}"] = f"{early:.1f} early, {late:.1f} late"
        if late > early * (1 + ALLOWED) + DIGITS:
            part.failures.append(f"{log} grows by {late:.1f} bytes a step, where it began with {early:.1f}")
    return [part]
