"""Replay a run of every zeroth-order method from its journal: seconds, kilobytes, equality of every bit."""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.experiments import SHORT, methods
from tests.faults.forked import PATIENCE, ForkedCommand
from tests.faults.report import Part
from tests.faults.trials import only_run
from zo_runner.records.result import TrainResult, read_result

# Queries of a step, where these are not two.
QUERIES = {"fzoo": 9, "hizoo": 3}

SAID = re.compile(r"replayed (\d+) steps in (\S+) s from (\S+) kB of journal, (\S+) kB of them numbers; (.*); /")


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """Replays of all methods."""
    return [partial(replays, 20 if quick else 2000)]


def replays(steps: int) -> list[Part]:
    """Train with each method; replay all steps, and those up to its best parameters."""
    part = Part(f"replays of {steps} steps")
    for name in [name for name, node in methods().items() if "eps" in node]:
        with tempfile.TemporaryDirectory(prefix="zo-faults-") as folder:
            _replay(part, name, steps, Path(folder))
    return [part]


def _replay(part: Part, name: str, steps: int, folder: Path) -> None:
    queries = steps * QUERIES.get(name, 2)
    patience = PATIENCE + queries  # a second a query
    # Without a test the last parameters of a fully trained model are kept, to compare with.
    words = [*SHORT, f"budget.queries={queries}", f"budget.eval_every={max(queries // 4, 1)}", "runtime.test=false"]
    words = [f"method={name}", *words, f"runtime.root={folder / 'run'}"]
    ended = ForkedCommand(words, folder / "log.txt", patience=patience).wait()
    if ended.code:
        part.case([f"{name} {ended}"])
        return
    run = only_run(folder / "run")
    result = read_result(run / "result.json")
    assert isinstance(result, TrainResult)
    for step in sorted({point["step"] for split, point in result.metrics["dev"].items() if split != "zero_shot"}):
        words = ["job=replay", f"run={run}", f"step={step}", "runtime.threads=1"]
        again = ForkedCommand(words, folder / "replay.txt", patience=patience).wait()
        found = SAID.search(again.said)
        if again.code or found is None:
            part.case([f"{name} at {step}: {again}"])
            continue
        taken, seconds, kilobytes, numbers, compared = found.groups()
        same = all(clause.startswith("bit for bit what ") for clause in compared.split("; "))
        part.case([] if same else [f"{name} at {step}: {compared}"])
        # The last one, of all steps, is kept.
        part.counts[name] = (
            f"{taken} steps in {seconds} s from {kilobytes} kB, {numbers} kB of them numbers; {compared}"
        )
