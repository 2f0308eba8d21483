"""A run of every zeroth-order method, taken again from its journal alone: seconds, kilobytes, equality of every bit.

python -m tests.faults.replays [--steps 2000] [--method NAME ...] [--json FILE]
"""

import argparse
import re
import tempfile
from pathlib import Path

from tests.faults.experiments import SHORT, methods
from tests.faults.kills import only_run
from tests.faults.report import Part, write
from tests.faults.sittings import PATIENCE, sit
from zo_runner.records.result import TrainResult, read_result

# Queries of a step, where these are not two.
_QUERIES = {"fzoo": 9, "hizoo": 3}

_SAID = re.compile(r"replayed (\d+) steps in (\S+) s from (\S+) kB of journal, (\S+) kB of them numbers; (.*); /")


def replays(steps: int, names: list[str]) -> Part:
    """Train with each method for some steps; replay all of them, and as many as its best parameters took."""
    part = Part(f"replays of {steps} steps")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="zo-replays-") as folder:
            _replays_of(part, name, steps, Path(folder))
    return part


def _replays_of(part: Part, name: str, steps: int, folder: Path) -> None:
    queries = steps * _QUERIES.get(name, 2)
    # Without a test the last parameters of a fully trained model are kept, to compare with.
    words = [*SHORT, f"budget.queries={queries}", f"budget.eval_every={max(queries // 4, 1)}", "runtime.test=false"]
    patience = PATIENCE + queries  # a second a query
    ended = sit([f"method={name}", *words, f"runtime.root={folder / 'run'}"], folder / "log.txt", patience=patience)
    if ended.code:
        part.case([f"{name} exits {ended.code}: {ended.said[-600:]}"])
        return
    run = only_run(folder / "run")
    result = read_result(run / "result.json")
    assert isinstance(result, TrainResult)
    for step in sorted({point["step"] for name, point in result.metrics["dev"].items() if name != "zero_shot"}):
        again = sit(
            ["job=replay", f"run={run}", f"step={step}", "runtime.threads=1"], folder / "replay.txt", patience=patience
        )
        found = _SAID.search(again.said)
        if again.code or found is None:
            part.case([f"{name} at {step}: exits {again.code} and says {again.said[-600:]!r}"])
            continue
        taken, seconds, kilobytes, numbers, compared = found.groups()
        same = all(what.startswith("bit for bit what ") for what in compared.split("; "))
        part.case([] if same else [f"{name} at {step}: {compared}"])
        # The last one, of all steps, stays.
        part.counts[name] = (
            f"{taken} steps in {seconds} s from {kilobytes} kB, {numbers} kB of them numbers; {compared}"
        )


def main() -> None:
    """Train, replay, compare."""
    parser = argparse.ArgumentParser(description="Take runs again from journals.")
    zeroth_order = [name for name, node in methods().items() if "eps" in node]
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--method", nargs="+", choices=zeroth_order, default=zeroth_order)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    given = parser.parse_args()
    write([lambda: replays(given.steps, given.method)], given.json)


if __name__ == "__main__":
    main()
