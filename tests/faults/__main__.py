"""Every part of the fault suite, and the page that says what came of it.

    python -m tests.faults FOLDER [--quick] [--only PART ...]

writes reliability.md and reliability.json to FOLDER; what stands above the first table of an older page is kept, and
with --only what the other parts found. --quick takes a few cases of everything, and writes nothing into a page that
people read: FOLDER should be another one then. Nothing else should fill the machine's memory.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.provenance import environment
from zo_runner.reporting.tables.formats import markdown

# Modules of this package, with their words for the whole suite and for a quick one.
PARTS: dict[str, tuple[list[str], list[str]]] = {
    "kills": (["--kills", "200"], ["--kills", "6", "--points", "2", "--commands", "1"]),
    "disk": ([], ["--points", "2"]),
    "files": ([], []),
    "endings": ([], ["--signals", "2"]),
    "fuzz": (["--cases", "12000"], ["--cases", "200"]),
    "replays": (["--steps", "2000"], ["--steps", "20"]),
    "long": (["--steps", "200000"], ["--steps", "1000"]),
}

MARK = "<!-- Below this line: written by `make faults`. -->"

_HEAD = "# Reliability\n\nWhat happens to runs when the world around them fails, put to the test by `make faults`."


def carry_out(name: str, words: list[str], facts: dict[str, Any]) -> dict[str, Any]:
    """Run one module in a process of its own; its exit code, its seconds, what it wrote, and where that was."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "found.json"
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"tests.faults.{name}", *words, "--json", str(file)])
        seconds = round(time.monotonic() - start, 1)
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return {"module": name, "words": words, "exit": done.returncode, "seconds": seconds, "found": found, "facts": facts}


def page(made: list[dict[str, Any]]) -> str:
    """What was found, as Markdown."""
    lines = [line | {"commit": _commit(module["facts"]["source"])} for module in made for line in _lines(module)]
    facts = made[-1]["facts"]
    where = f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, torch {facts['packages']['torch']}"
    parts = [MARK, f"{where}.", markdown(pd.DataFrame(lines).astype(str))]
    for module in made:
        for part in module["found"] if isinstance(module["found"], list) else []:
            rows = [{"counted": key, "": value} for key, value in part["counts"].items()]
            if rows:
                parts += [f"## {part['name'][0].upper()}{part['name'][1:]}", markdown(pd.DataFrame(rows).astype(str))]
            parts += [f"- FAILED: {failure}" for failure in part["failures"]]
    fuzzed = next((module["found"] for module in made if module["module"] == "fuzz" and module["found"]), None)
    if fuzzed is not None:
        parts += ["## Broken input", markdown(pd.DataFrame(fuzzed["kinds"]).round(1).astype(str))]
    return "\n\n".join(parts) + "\n"


def _commit(source: dict[str, Any]) -> str:
    return source.get("commit", "unknown")[:10] + (", changed" if source.get("dirty") else "")


def _lines(module: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the first table."""
    found = module["found"]
    if found is None:
        failed = {"fault": module["module"], "cases": "-", "failures": f"exit {module['exit']}"}
        return [{**failed, "minutes": f"{module['seconds'] / 60:.1f}"}]
    if not isinstance(found, list):  # of tests.faults.fuzz, which stops at its first failure
        found = [{"name": "broken input", "cases": found["cases"], "failures": [], "seconds": module["seconds"]}]
    return [
        {
            "fault": part["name"] + (f" (skipped: {part['skipped']})" if part.get("skipped") else ""),
            "cases": part["cases"],
            "failures": len(part["failures"]),
            "minutes": f"{part['seconds'] / 60:.1f}",
        }
        for part in found
    ]


def main() -> None:
    """Do everything, write it down; exit 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Put faults into real runs.")
    parser.add_argument("folder", type=Path, help="where to write reliability.md and reliability.json")
    parser.add_argument("--quick", action="store_true", help="a few cases of everything")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to carry out")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"no such folder: {given.folder}")
    # Before anything is written: a page that has got its first part is a change of the source.
    facts = {**environment(), "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    exits = [_saved(given.folder, carry_out(name, PARTS[name][given.quick], facts)) for name in given.only]
    sys.exit(any(exits))


def _saved(folder: Path, module: dict[str, Any]) -> int:
    """Put what a module found beside what others did; its exit code.

    The folder is read anew each time: what is found in two hours is not lost with the third, and two commands with
    different parts can write to one folder.
    """
    file = folder / "reliability.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    known = {each["module"]: each for each in found} | {module["module"]: module}
    made = [known[name] for name in PARTS if name in known]
    write_atomic(file, json.dumps(made, indent=1) + "\n")
    document = folder / "reliability.md"
    kept = document.read_text(encoding="utf-8").partition(MARK)[0].rstrip() if document.exists() else _HEAD
    write_atomic(document, f"{kept}\n\n{page(made)}")
    return int(module["exit"])


if __name__ == "__main__":
    main()
