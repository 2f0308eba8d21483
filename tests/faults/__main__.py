"""Inject faults into real runs, and write a page with the results.

    python -m tests.faults FOLDER [--quick] [--only PART ...]

writes reliability.md and reliability.json to FOLDER and exits with 1 after a failure. The text above the first table of
an older page is kept, and so are the results of parts that are not in --only. --quick takes a few cases of each part;
write these to another folder than docs/. Nothing else should fill the machine's memory meanwhile.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from tests.faults import disk, endings, files, kills, long, replays
from tests.faults.report import Part, carry_out
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.provenance import environment
from zo_runner.reporting.tables.formats import markdown

# The functions of each part, for the whole suite and for a quick one.
Functions = list[Callable[[], list[Part]]]
PARTS: dict[str, Callable[[bool], Functions]] = {
    "kills": kills.functions,
    "disk": disk.functions,
    "files": files.functions,
    "endings": endings.functions,
    "replays": replays.functions,
    "long": long.functions,
}

MARK = "<!-- Below this line: written by `make faults`. -->"

HEAD = "# Reliability\n\nRuns under kills, full disks, torn files and signals, as tested by `make faults`."


def page(made: list[dict[str, Any]]) -> str:
    """The results of all parts, as Markdown."""
    facts = made[-1]["facts"]
    where = f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, torch {facts['packages']['torch']}"
    rows = [
        {
            "fault": part["name"] + (f" (skipped: {part['skipped']})" if part.get("skipped") else ""),
            "cases": part["cases"],
            "failures": len(part["failures"]),
            "minutes": f"{part['seconds'] / 60:.1f}",
            "commit": commit(module["facts"]["source"]),
        }
        for module in made
        for part in module["found"]
    ]
    blocks = [MARK, f"{where}.", table(rows)]
    for part in [part for module in made for part in module["found"]]:
        if part["counts"]:
            blocks.append(f"## {part['name'][0].upper()}{part['name'][1:]}")
            blocks.append(table([{"counted": key, "": value} for key, value in part["counts"].items()]))
        blocks += [f"- FAILED: {failure}" for failure in part["failures"]]
    return "\n\n".join(blocks) + "\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    return markdown(pd.DataFrame(rows).astype(str))


def commit(source: dict[str, Any]) -> str:
    """The first digits of a commit, and a note of uncommitted changes."""
    return source.get("commit", "unknown")[:10] + (", changed" if source.get("dirty") else "")


def save(folder: Path, module: dict[str, Any]) -> None:
    """Put the results of one part beside those of the others.

    The folder is read anew each time, so that results survive an interruption, and two commands with different parts
    can write to one folder.
    """
    file, document = folder / "reliability.json", folder / "reliability.md"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    by_name = {each["module"]: each for each in [*known, module]}
    made = [by_name[name] for name in PARTS if name in by_name]
    write_atomic(file, json.dumps(made, indent=1) + "\n")
    kept = document.read_text(encoding="utf-8").partition(MARK)[0].rstrip() if document.exists() else HEAD
    write_atomic(document, f"{kept}\n\n{page(made)}")


def main() -> None:
    """Carry out the chosen parts; exit 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults into real runs.")
    parser.add_argument("folder", type=Path, help="existing folder for reliability.md and reliability.json")
    parser.add_argument("--quick", action="store_true", help="a few cases of each part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to carry out")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"no such folder: {given.folder}")
    # Before the page is written, which would count as a change of the source.
    facts = {**environment(), "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    failed = False
    for name in given.only:
        start = time.monotonic()
        found = carry_out(PARTS[name](given.quick))
        seconds = round(time.monotonic() - start, 1)
        save(given.folder, {"module": name, "seconds": seconds, "found": list(map(asdict, found)), "facts": facts})
        failed |= any(part.failures for part in found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
