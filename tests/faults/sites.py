"""Every call by which a process changes files below a folder, numbered, so that a fault can be injected at each.

Python announces to audit hooks which files it opens, makes, renames and removes. It does not announce writes to an
open file, nor those of safetensors, which writes from Rust, so these calls are replaced in the process that calls
`watch`, for good.
"""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

# Called before each site with its number from 1, its kind and its file; raises what the call is to raise.
Act = Callable[[int, str, str], None]

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {"os.mkdir": "mkdir", "os.rename": "rename", "os.truncate": "truncate"} | {
    "os.remove": "remove",
    "os.rmdir": "remove",
}

# Kinds that a full disk still allows.
FREEING = ("remove", "truncate")


def watch(root: Path, act: Act, *, freeing: bool = True) -> None:
    """Call `act` before every call that changes something below `root`.

    Args:
        root: absolute.
        act: the fault.
        freeing: True if removing and truncating count as sites.
    """
    below = f"{root}{os.sep}"
    number = 0

    def reach(kind: str, file: str) -> None:
        nonlocal number
        if freeing or kind not in FREEING:
            number += 1
            act(number, kind, file)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITING and (name := _below(path, below)):
                reach("open", name)
        elif event in EVENTS:
            # shutil.rmtree removes relative to an open folder
            folder = args[1] if EVENTS[event] == "remove" else -1
            if name := _below(args[0], below, folder):
                reach(EVENTS[event], name)

    sys.addaudithook(hear)
    _watch_writes(below, reach)


def _below(path: Any, below: str, folder: int = -1) -> str:
    """The absolute path, empty if it is elsewhere; `path` or `folder` may be the number of an open file."""
    try:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif folder >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    except OSError:
        return ""
    name = os.path.abspath(os.fsdecode(path))
    return name if name.startswith(below) else ""


def _watch_writes(below: str, reach: Callable[[str, str], None]) -> None:
    plain_open, plain_write, plain_fsync = io.open, os.write, os.fsync
    plain_serialize: Any = safetensors.torch.serialize_file

    def watched_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = plain_open(file, mode, *args, **kwargs)
        name = _below(file, below) if set(mode) & set("wax+") else ""
        return _Stream(stream, name, reach) if name else stream

    def watched_write(handle: int, data: Any) -> int:
        if name := _below(handle, below):
            try:
                reach("write", name)
            except Torn:
                plain_write(handle, data[: len(data) // 2])
                die()
        return plain_write(handle, data)

    def watched_fsync(handle: Any) -> None:
        if name := _below(handle if isinstance(handle, int) else handle.fileno(), below):
            reach("fsync", name)
        plain_fsync(handle)

    def watched_serialize(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        if name := _below(filename, below):
            reach("save", name)
        plain_serialize(tensors, filename, *args, **kwargs)

    io.open = builtins.open = watched_open  # type: ignore[assignment]
    os.write, os.fsync = watched_write, watched_fsync  # type: ignore[assignment]
    safetensors.torch.serialize_file = watched_serialize


class _Stream:
    """A file open for writing, whose writes and flushes are sites. A torn write leaves half of its text."""

    def __init__(self, stream: Any, name: str, reach: Callable[[str, str], None]) -> None:
        self._stream, self._name, self._reach = stream, name, reach

    def write(self, data: Any) -> Any:
        try:
            self._reach("write", self._name)
        except Torn:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
            die()
        return self._stream.write(data)

    def flush(self) -> None:
        self._reach("flush", self._name)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Any:
        return iter(self._stream)


class Torn(Exception):
    """Asks a write to leave half of its text and the process to die."""


def die() -> None:
    """Die as of `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def killing(when: Callable[[int, str, str], bool]) -> Act:
    """Die at the first site with such a number, kind and file; one that writes text leaves half of it."""

    def act(number: int, kind: str, file: str) -> None:
        if when(number, kind, file):
            if kind == "write":
                raise Torn
            die()

    return act


def full(since: int, until: int | None = None) -> Act:
    """Raise "no space left on device" from one site on, up to another exclusively."""

    def act(number: int, kind: str, file: str) -> None:
        if number >= since and (until is None or number < until):
            if kind == "save":
                raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(ENOSPC)} (os error {ENOSPC})")
            raise OSError(ENOSPC, os.strerror(ENOSPC), file)

    return act
