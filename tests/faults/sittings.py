"""One command in a process of its own, forked from a parent that has imported everything: a second instead of ten.

A parent has imported torch and the runner, has composed the configuration and has computed nothing. A child calls the
command line's own `main`, and the parent sees what a shell would see: an exit code, or the signal that ended it, and
what was said.
"""

import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}

import torch
import transformers.models.opt.modeling_opt
import transformers.models.qwen3.modeling_qwen3  # noqa: F401  # what a child would import first, and the other one
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from zo_runner import cli
from zo_runner.config.schema import HOME
from zo_runner.jobs import train  # what a child would import first

torch.set_num_threads(1)

# Keys that change no other: they are set after a configuration has been composed, which takes half a second.
_LATE = ("runtime.root", "seed")

# Seconds after which a short sitting hangs.
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
        patience: seconds after which it hangs.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        prepare: Callable[[], None] | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        assert train is not None  # likewise
        cfg = configured(words)
        self.log, self.start, self.patience = log, time.monotonic(), patience
        log.write_bytes(b"")
        self.pid = os.fork()
        if self.pid == 0:
            _command(cfg, words, log, prepare)

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
            if age > self.patience:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"after {self.patience:.0f} s: {self.log.read_text(encoding='utf-8')}")
            time.sleep(_EVERY)
        return Ended(code, self.log.read_text(encoding="utf-8"), time.monotonic() - self.start)


def sit(
    words: Sequence[str], log: Path, prepare: Callable[[], None] | None = None, *, patience: float = PATIENCE
) -> Ended:
    """A sitting that nobody disturbs."""
    return Sitting(words, log, prepare, patience=patience).wait()


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


def configured(words: Sequence[str]) -> DictConfig:
    """The configuration of a command line, with Hydra's own part."""
    late = dict(word.split("=", 1) for word in words if word.split("=")[0] in _LATE)
    cfg = _composed(tuple(word for word in words if word.split("=")[0] not in _LATE)).copy()
    for key, value in late.items():
        OmegaConf.update(cfg, key, value)
    return cfg


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(HOME / "conf")):
        return compose("run", list(words), return_hydra_config=True)


def _command(cfg: DictConfig, words: Sequence[str], log: Path, prepare: Callable[[], None] | None) -> None:
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
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        job = cli._job.__wrapped__  # what Hydra would call with the configuration
        cli._job = lambda: job(cfg)
        sys.argv = ["zo-run", *words]
        if prepare is not None:
            prepare()
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
