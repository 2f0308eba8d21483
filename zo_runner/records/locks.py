"""One process per run, on all machines that share a folder. No torch.

A lock is held by the kernel (flock) and not by the file, so whatever ends its holder, kill -9 included, frees it.
"""

import errno
import fcntl
import os
import socket
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zo_runner.errors import RunWarning, UserError
from zo_runner.records.atomic_files import writing

# A look at a lock takes it for an instant, so one refusal is not the last word.
_TRIES, _PAUSE = 5, 0.02

# Of what a holder says of itself, so many bytes are shown.
_LONGEST = 200


class Busy(RuntimeError):
    """Another process is at this run."""


def lock_file(root: Path, run_id: str) -> Path:
    """Where the lock of a run is. Beside the runs and not in one, so that bad input leaves no folder behind."""
    return root / f".{run_id}.lock"


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold a lock for the length of a block. Where the file system has no locks: warn and go on.

    Raises:
        Busy: it is held elsewhere; the message says by whom.
        UserError: a link stands in its place.
        Fault: it cannot be written.
    """
    handle = _acquire(file)
    try:
        with writing(file):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # before it is freed: nobody can hold it at this moment
        os.close(handle)


def is_held(file: Path) -> bool:
    """Whether some process holds the lock at this moment."""
    try:
        handle = _open(file)
    except FileNotFoundError:
        return False
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


def _acquire(file: Path) -> int:
    for attempt in range(_TRIES):
        handle = _open(file, os.O_CREAT)
        if _locked(handle):
            if _is_at(handle, file):
                return handle
        elif attempt == _TRIES - 1:
            holder = os.pread(handle, _LONGEST, 0).decode(errors="replace")
            os.close(handle)
            raise Busy(f"This run is being made by {holder or 'another process'}.")
        os.close(handle)  # its holder has removed the file since, or only looked at it
        time.sleep(_PAUSE)
    raise Busy("This run is being made by another process.")


def _open(file: Path, flags: int = 0) -> int:
    """A handle on the file itself: a link might lead to a file that is then written over.

    Raises:
        FileNotFoundError: there is no file, and none is to be made.
        UserError: something else is there.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o644)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        reason = "not a file"
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
    raise UserError(f"Invalid lock {str(file)!r} ({reason}). Must be a file, or not there.")


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        warnings.warn("this file system has no locks: two processes may make one run twice", RunWarning, stacklevel=2)
    return True


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False
