"""One command in a process of its own, forked from a parent that has imported everything: a second instead of ten.

A parent has imported torch and the runner and has computed nothing. A child calls the command line's own `main`, and
the parent sees what a shell would see: an exit code, or the signal that ended it, and what was said.
"""

import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}

import torch
from hydra.core.global_hydra import GlobalHydra

from zo_runner import cli, run

torch.set_num_threads(1)

# Seconds after which a sitting hangs.
PATIENCE = 300.0

# Looks of the parent at its child.
_EVERY = 0.002

# What a child does about a bug in this package.
_BROKEN = 70


@dataclass(frozen=True)
class Ended:
    """How a sitting ended.

    Attributes:
        code: exit code, or minus the signal that ended it.
        said: standard output and error together.
        seconds: wall clock.
    """

    code: int
    said: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def reported(self) -> bool:
        """Whether it failed as a run must: exit 1, its reason in one line, no traceback."""
        errors = [line for line in self.said.splitlines() if line.startswith("zo-run: error: ")]
        return self.code == 1 and len(errors) == 1 and "Traceback" not in self.said


class Sitting:
    """A running child.

    Args:
        words: of the command line, without `zo-run`.
        log: the file that gets what it says.
        prepare: called in the child before the command.
    """

    def __init__(self, words: Sequence[str], log: Path, prepare: Callable[[], None] | None = None) -> None:
        assert run is not None  # what a child would import first
        self.log, self.start = log, time.monotonic()
        log.write_bytes(b"")
        self.pid = os.fork()
        if self.pid == 0:
            _command(words, log, prepare)

    def ended(self) -> int | None:
        """The exit code, minus the signal, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self, *, sends: int = 0, after: float = 0.0, when: Callable[[], bool] | None = None) -> Ended:
        """Until it ends.

        Args:
            sends: a signal for it; 0 for none.
            after: seconds before that.
            when: what must hold before that.

        Raises:
            TimeoutError: it hangs.
        """
        while (code := self.ended()) is None:
            age = time.monotonic() - self.start
            if sends and age >= after and (when is None or when()):
                os.kill(self.pid, sends)
                sends = 0
            if age > PATIENCE:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"after {PATIENCE:.0f} s: {self.log.read_text(encoding='utf-8')}")
            time.sleep(_EVERY)
        return Ended(code, self.log.read_text(encoding="utf-8"), time.monotonic() - self.start)


def sit(words: Sequence[str], log: Path, prepare: Callable[[], None] | None = None) -> Ended:
    """A sitting that nobody disturbs."""
    return Sitting(words, log, prepare).wait()


class Shared:
    """A few bytes that a child writes and its parent reads, also after a SIGKILL."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def text(self) -> str:
        """What was written last."""
        return self._bytes[1 : 1 + self._bytes[0]].decode()

    @text.setter
    def text(self, value: str) -> None:
        raw = value.encode()[:255]
        self._bytes[: 1 + len(raw)] = bytes([len(raw)]) + raw


def _command(words: Sequence[str], log: Path, prepare: Callable[[], None] | None) -> None:
    """The child: never returns."""
    code = _BROKEN
    try:
        # A parent in the background of a shell ignores SIGINT, and its children would.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handle = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        GlobalHydra.instance().clear()
        if prepare is not None:
            prepare()
        sys.argv = ["zo-run", *words]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
