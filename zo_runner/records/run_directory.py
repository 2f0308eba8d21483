"""The run directory: its files, when they are written, and reading them back. No torch.

runs/<task>/<model>/<method>/s<seed>-<run_id>/
    config.yaml  meta.json        at start
    metrics.jsonl journal.jsonl   appended
    checkpoint.safetensors        now and then, until the run ends
    best/ adapter/                on improvement / at the end
    result.json                   last, atomically; a directory without it is unfinished
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from zo_runner.errors import Fault, UserError, invalid
from zo_runner.records.atomic_files import beside, delete, share, write_atomic, writing
from zo_runner.records.json_files import decode, encode, read_object
from zo_runner.records.result import RunResult, is_of_another_version, read_result, write_result

_OWN = (
    "config.yaml",
    "meta.json",
    "metrics.jsonl",
    "journal.jsonl",
    "checkpoint.safetensors",
    "result.json",
    "error.txt",
    "adapter",
    "best",
    "last",
    "replay",
    "wandb",
)


def require_writable(root: Path) -> None:
    """Make `root` if need be.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Invalid runtime.root: {str(root)!r} ({reason}). Must be a folder that can be written to."
        ) from None


class RunDirectory:
    """One run's folder.

    Args:
        path: the folder, `s<seed>-<run_id>`; made by `start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name.rsplit("-", 1)[-1]
        self._events: TextIO | None = None

    def result(self) -> RunResult | None:
        """The result of a finished run, None for an unfinished one, and for one of another version.

        Raises:
            Fault: the file is broken.
        """
        return read_result(self.path / "result.json")

    @property
    def may_be_under_way(self) -> bool:
        """True if there is a folder, and not one of another version."""
        return self.path.is_dir() and not is_of_another_version(self.path / "result.json")

    def start(self, config_yaml: str, meta: dict[str, Any]) -> None:
        """Begin afresh: remove what an unfinished run left, write config.yaml and meta.json.

        Raises:
            UserError: the folder, or one on the way to it, is a link to somewhere else.
        """
        self._require_no_links()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._tidy(*_OWN)
        self.describe(config_yaml, meta)

    def go_on(self, events: int) -> int:
        """Take up an interrupted run.

        Args:
            events: lines that metrics.jsonl had when the checkpoint was made.

        Returns:
            Number of whole lines beyond them.

        Raises:
            Fault: it has fewer.
            UserError: it, or a file in it, is a link to somewhere else.
        """
        self._require_no_links()
        if links := [file.name for file in self.path.iterdir() if file.is_symlink()]:
            raise invalid(
                "run directory", str(self.path), f"without links such as {links[0]}, since a run goes on in it"
            )
        file = self.path / "metrics.jsonl"
        if not file.is_file():  # a pipe would be waited for
            raise Fault(f"Cannot read {file}: no file.")
        with writing(self.path):
            self._tidy("result.json", "error.txt")
        with writing(file):
            whole = file.read_bytes().rpartition(b"\n")
            os.truncate(file, len(whole[0]) + len(whole[1]))
        found = (whole[0] + whole[1]).count(b"\n")
        if found < events:
            raise Fault(f"{file} has {found} lines, and had {events} when the checkpoint beside it was made.")
        return found - events

    def describe(self, config_yaml: str, meta: dict[str, Any]) -> None:
        """Write config.yaml and meta.json."""
        write_atomic(self.path / "config.yaml", config_yaml)
        write_atomic(self.path / "meta.json", json.dumps(encode(meta), indent=2) + "\n")

    def log(self, event: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl, on its way to disk when this returns."""
        with writing(self.path / "metrics.jsonl"):
            if self._events is None:
                self._events = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
            self._events.write(json.dumps(encode(event), allow_nan=False) + "\n")
            self._events.flush()

    def replace(self, name: str, write: Any) -> None:
        """Let `write(folder)` fill a new folder and put it in the place of `name`, which may lie in a folder."""
        target = self.path / name
        with writing(target):
            if target.parent != self.path and target.parent.is_symlink():
                target.parent.unlink()
            if target.parent != self.path:  # a run's folder that has vanished is not made again
                target.parent.mkdir(exist_ok=True)
            new = beside(self.path / Path(name).parts[0])
            new.mkdir()
            try:
                write(new)
                for file in new.iterdir():
                    share(file, new.stat().st_mode)
                delete(target)
                os.replace(new, target)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise

    def remove(self, name: str) -> None:
        """Remove a file or folder of the run, if it is there."""
        with writing(self.path / name):
            delete(self.path / name)

    def tidy_up(self, result: RunResult) -> None:
        """Remove what a finished run needs no more, where a process that was killed as it ended has left it."""
        for name in ("checkpoint.safetensors", *(["last"] if result.is_complete(tested=True) else [])):
            if (self.path / name).exists():
                with suppress(Fault):  # a result can be read where nothing can be written
                    self.remove(name)

    def finish(self, result: RunResult) -> None:
        """Close the logs and write result.json."""
        self.close()
        write_result(self.path / "result.json", result)

    def close(self) -> None:
        """Close the logs."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _require_no_links(self) -> None:
        """Refuse a folder that a link below the root puts somewhere else: what is removed there is not the run's."""
        root = self.path.parents[3]
        if self.path.resolve() != root.resolve() / self.path.relative_to(root):
            raise invalid("run directory", str(self.path), f"no link below {str(root)!r}, since a run removes files")

    def _tidy(self, *names: str) -> None:
        """Remove what has these names, and what was being written when a process was killed."""
        # safetensors, too, writes to a file of its own first.
        leftovers = (*(f".{name}." for name in _OWN), ".tmp")
        for target in list(self.path.iterdir()):
            if target.name in names or target.name.startswith(leftovers):
                delete(target)


def read_meta(run: Path) -> dict[str, Any]:
    """The meta.json of a run; empty where it is missing or broken, since no number depends on it."""
    meta: dict[str, Any] = decode(read_object(run / "meta.json") or {})
    return meta


def find_runs(root: Path) -> Iterator[Path]:
    """Folders below `root` that hold a result.json, in a fixed order."""
    for file in sorted(root.glob("*/*/*/*/result.json")):
        yield file.parent
