"""One process per run, on all machines that share a folder. No torch.

The kernel holds a lock (flock), not the file, so whatever ends the holder frees it, kill -9 included.
"""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zo_runner.errors import RunWarning
from zo_runner.records.atomic_files import writing

# Seconds. `is_held` takes a lock for an instant, so `hold` asks more than once.
_PATIENCE, _PAUSE = 0.1, 0.02

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Busy(RuntimeError):
    """Another process is making this run."""


def lock_file(root: Path, run_id: str) -> Path:
    """The path of a run's lock: beside the run folders and not in one, so that bad input leaves no folder behind."""
    return root / f".{run_id}.lock"


@contextmanager
def hold(file: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold a lock for the length of a block, and remove its file afterwards. Warn on a file system without locks.

    Args:
        file: of the lock.
        patience: seconds to try for.

    Raises:
        Busy: another process holds it; the message names that process.
        Fault: the file cannot be opened or written.
    """
    lock = FileLock(file, fallback_to_soft=False)
    with writing(file):
        try:
            lock.acquire(timeout=patience, poll_interval=_PAUSE)
        except Timeout:
            raise Busy(f"This run is being made by {_holder(file)}.") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn("this file system has no locks: two processes may make one run twice", RunWarning, 3)
    try:
        with writing(file):
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        file.unlink(missing_ok=True)  # before the release: nobody else can hold it yet
        lock.release()


def is_held(file: Path) -> bool:
    """True if a process holds the lock now."""
    if not file.exists():
        return False
    try:
        with hold(file, patience=0):
            return False
    except Busy:
        return True


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace") or "another process"
    except FileNotFoundError:  # released since
        return "another process"
