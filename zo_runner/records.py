"""The run directory: what is written, when, and how it is read back. No torch.

    runs/<task>/<model>/<method>/s<seed>-<run_id>/
        config.yaml  meta.json        at start
        metrics.jsonl journal.jsonl   appended
        best/ adapter/                on improvement / at the end
        result.json                   last, atomically; a directory without it is unfinished

JSON has no infinity: non-finite floats stand as the strings "inf", "-inf" and "nan", and come back as floats.
"""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from zo_runner.errors import UserError

SCHEMA = 3
PACKAGES = ("zo-run", "torch", "transformers", "peft", "hydra-core", "omegaconf", "wandb", "numpy")
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_OWN = (
    "config.yaml",
    "meta.json",
    "metrics.jsonl",
    "journal.jsonl",
    "result.json",
    "error.txt",
    "adapter",
    "best",
    "last",
    "wandb",
)


def encode(value: Any) -> Any:
    """`value` with non-finite floats as strings, ready for strict JSON."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def write_atomic(file: Path, text: str) -> None:
    """Write `text` so that `file` is either the old one or the whole new one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
        self._streams: dict[str, TextIO] = {}

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, None for an unfinished one."""
        return read_result(self.path / "result.json")

    def start(self, config_yaml: str, meta: dict[str, Any]) -> None:
        """Begin afresh: remove what an unfinished run left, write config.yaml and meta.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _OWN:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        write_atomic(self.path / "config.yaml", config_yaml)
        write_atomic(self.path / "meta.json", json.dumps(encode(meta), indent=2) + "\n")

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl or journal.jsonl and flush it."""
        if name not in self._streams:
            self._streams[name] = (self.path / name).open("a", encoding="utf-8")
        stream = self._streams[name]
        stream.write(json.dumps(encode(row), allow_nan=False) + "\n")
        stream.flush()

    def replace(self, name: str, write: Any) -> None:
        """Let `write(folder)` fill a new folder and put it in the place of `name`."""
        aside = Path(tempfile.mkdtemp(dir=self.path, prefix=f".{name}."))
        try:
            write(aside)
            target = self.path / name
            if target.exists():
                shutil.rmtree(target)
            aside.chmod(0o755)
            os.replace(aside, target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a folder of the run, if it is there."""
        shutil.rmtree(self.path / name, ignore_errors=True)

    def finish(self, result: dict[str, Any]) -> None:
        """Close the logs and write result.json."""
        self.close()
        write_atomic(self.path / "result.json", json.dumps(encode(result), indent=2, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the logs."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()


def read_result(file: Path) -> dict[str, Any] | None:
    """A result.json, None if it is missing or is not a whole one of this schema."""
    try:
        result = decode(json.loads(_text(file)))
    except (OSError, ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) and result.get("schema") == SCHEMA else None


def is_complete(result: dict[str, Any], *, tested: bool) -> bool:
    """Whether nothing is left to do; with `tested`, test must have been read, if the job reads it."""
    return result["status"] in ("done", "diverged") and (not tested or bool(result.get("tested", True)))


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of metrics.jsonl or journal.jsonl.

    Raises:
        OSError: there is no such file.
        UserError: a line that is no row, by its number.
    """
    try:
        text = _text(file)
    except UnicodeDecodeError as error:
        raise UserError(f"Invalid {file}: {error}. Must be one JSON object per line.") from None
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            row = decode(json.loads(line))
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"Invalid {file}:{number}: {line[:80]!r}. Must be one JSON object.")
        yield row


def read_meta(run: Path) -> dict[str, Any]:
    """The meta.json of a run; empty where it is missing or broken."""
    try:
        meta = decode(json.loads(_text(run / "meta.json")))
    except (OSError, ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _text(file: Path) -> str:
    """What stands in a file. A pipe or a device, which might be read for ever, is no file."""
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return file.read_text(encoding="utf-8")


def find_runs(root: Path) -> Iterator[Path]:
    """Folders below `root` that hold a result.json, in a fixed order."""
    for file in sorted(root.glob("*/*/*/*/result.json")):
        yield file.parent


def environment() -> dict[str, Any]:
    """Where and with what this process runs: versions, command, commit of the source tree."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "packages": versions,
        "source": _source(),
    }


def _source() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that this package is run from; empty for an installed one."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return {}
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
