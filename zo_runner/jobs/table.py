"""`job=table`: one table of finished runs, of those below runtime.root or of those of a multirun. No torch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config import yaml_files
from zo_runner.errors import UserError
from zo_runner.jobs.console import complain, say
from zo_runner.records.run_directory import find_runs

# Groups of the command line that are compared by name.
_GROUPS = ("model", "task", "method", "adapter", "budget", "noise")

# Keys of the note that a job of a multirun leaves when it ends, and the types of their values.
_NOTE = {"overrides": list, "run": str | None, "error": str | None}


def rebuild(cfg: DictConfig, overrides: Iterable[str]) -> bool:
    """Make the table of every finished run below runtime.root that agrees with the overrides.

    Returns:
        False if a run or a table was refused, and said so.

    Raises:
        UserError: no run agrees.
    """
    root = Path(cfg.runtime.root)
    chosen = [override.split("=")[0].lstrip("+") for override in overrides]
    keys = [key for key in chosen if key not in ("job", "tracker") and not key.startswith(("runtime.root", "tracker."))]
    keys = [f"{key}.name" if key in _GROUPS else key for key in keys]
    runs, whole = [], True
    for run in find_runs(root):
        try:
            if agrees(yaml_files.read(run / "config.yaml"), cfg, keys):
                runs.append(run)
        except UserError as error:
            complain(f"{error} The run is left out.")
            whole = False
    if not runs:
        raise UserError(
            f"No table: no run below {str(root)!r} agrees with the command. Run some first, or choose fewer keys."
        )
    return write(runs, root) and whole


def agrees(saved: Mapping[str, Any], cfg: DictConfig, keys: Iterable[str]) -> bool:
    """True if a run's configuration is of training, and equal to `cfg` under some dotted keys."""
    return saved.get("job") == "train" and all(_at(saved, key) == OmegaConf.select(cfg, key) for key in keys)


def _at(node: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def write(runs: Iterable[Path], folder: Path) -> bool:
    """Print and save the table of some runs. False if a part of it was refused, and said so."""
    from zo_runner.reporting.tables import tables

    results, unreadable = tables.gather(runs)
    made, refused = tables.build(results)
    if text := tables.write(made, refused, folder):
        say(f"\n{text}\n{folder / 'table.md'}  {folder / 'table.csv'}")
    for sentence in (*unreadable, *refused):
        complain(sentence)
    return not unreadable and not refused


def read_notes(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The notes of a multirun's jobs, and a sentence for each line that is no note."""
    notes, broken = [], []
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            note = json.loads(line)
        except (ValueError, RecursionError):
            note = None
        if isinstance(note, dict) and all(isinstance(note.get(key, 0), kind) for key, kind in _NOTE.items()):
            notes.append(note)
        else:
            broken.append(f"{file}:{number} is no note of a job; what it said is left out.")
    return notes, broken
