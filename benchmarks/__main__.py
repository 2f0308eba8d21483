"""Measure everything side by side.

    python -m benchmarks [--quick] [FOLDER]

writes bench.md and bench.json to FOLDER, or prints the page where none is given. ZO_REAL names a folder with a real
model and data (smollm2-135m/ and movie/), which are then measured too. --quick takes the pocket models and a few cells.
Nothing else should run on the machine.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import report
from benchmarks.matrix import POCKET, QUICK, REAL, Cell, Grid, Memory, cells, memory
from benchmarks.rounding import Rounding, roundings
from benchmarks.settings import pocket, real
from benchmarks.start import starts
from zo_runner.assets import ASSETS
from zo_runner.errors import UserError, invalid
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.json_files import encode


def main() -> None:
    """Measure, and write or print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure steps side by side.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to write bench.md and bench.json")
    parser.add_argument("--quick", action="store_true", help="pocket models only, a few cells, under two minutes")
    given = parser.parse_args()
    if given.folder is not None and not given.folder.is_dir():
        parser.error(f"no such folder: {given.folder}")
    grids = dict.fromkeys(ASSETS, QUICK if given.quick else POCKET)
    try:
        page, data = measure(grids, None if given.quick else os.environ.get("ZO_REAL"), 1 if given.quick else 5)
    except UserError as error:
        sys.exit(str(error))
    if given.folder is None:
        print(page)
        return
    write_atomic(given.folder / "bench.json", json.dumps(encode(data)) + "\n")
    write_atomic(given.folder / "bench.md", page)


def measure(
    pockets: dict[str, Grid], real_folder: str | None = None, started: int = 0
) -> tuple[str, dict[str, object]]:
    """The page, and what it is made of.

    Args:
        pockets: embedded models by name, each with what is measured on it.
        real_folder: holds a real model and data; None for none.
        started: how often each kind of process is started.

    Raises:
        UserError: `real_folder` does not hold what it should; nothing has been measured then.
        RuntimeError: variants that do not compute the same losses.
    """
    facts = report.facts()
    plan = [(lambda name=name: pocket(name), grid) for name, grid in pockets.items()]
    if real_folder is not None:
        if not all((Path(real_folder) / name).is_dir() for name in ("smollm2-135m", "movie")):
            raise invalid("ZO_REAL", real_folder, "a folder that holds smollm2-135m/ and movie/")
        plan.append((lambda: real(Path(real_folder)), REAL))
    found: list[Cell] = []
    held: list[Memory] = []
    rounded: list[Rounding] = []
    for make, grid in plan:
        setting = make()
        facts["threads"][setting.name] = setting.threads
        for cell in cells(setting, grid):
            found.append(cell)
            print(".", end="", file=sys.stderr, flush=True)
        held += memory(setting, grid)
        rounded += roundings(setting, ranks=grid.rounded_ranks, directions=grid.rounded_directions)
    print(file=sys.stderr)
    began = list(starts(started)) if started else []
    lists = {"cells": found, "memory": held, "rounding": rounded, "start": began}
    data = {**facts, **{name: [asdict(row) for row in rows] for name, rows in lists.items()}}
    return report.text(found, held, rounded, began, facts), data


if __name__ == "__main__":
    main()
