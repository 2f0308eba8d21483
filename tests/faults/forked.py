"""A zo-run command in a forked process: a second instead of ten, since the parent has imported everything.

The parent has imported torch and the runner, has composed the configuration and has computed nothing. The child calls
the command line's own `main`, and the parent sees what a shell would: the exit code or signal, and the output.
"""

import gc
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
import transformers.models.qwen3.modeling_qwen3  # noqa: F401  # every child would import both
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

import zo_runner.jobs.train  # noqa: F401  # likewise
from zo_runner import cli
from zo_runner.config.schema import HOME

torch.set_num_threads(1)
gc.freeze()  # or every child would go through all that was imported, several times

# Keys that are set after composition, which takes half a second.
LATE = ("runtime.root", "seed")

# Seconds after which a short run is taken to hang.
PATIENCE = 300.0

# Seconds between looks at a child.
INTERVAL = 0.002

# Exit code of a child that fails outside of `main`.
BROKEN = 70


@dataclass(frozen=True)
class Ended:
    """The end of a command.

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
        """True if SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def reported(self) -> bool:
        """True if it failed with exit code 1 and one line of error, no traceback."""
        errors = [line for line in self.said.splitlines() if line.startswith("zo-run: error: ")]
        return self.code == 1 and len(errors) == 1 and "Traceback" not in self.said

    def __str__(self) -> str:
        return f"exits {self.code} and says {self.said[-600:]!r}"


class ForkedCommand:
    """A running child.

    Args:
        words: of the command line, without `zo-run`.
        log: file for its output.
        prepare: called in the child before the command.
        patience: seconds after which it is taken to hang.
    """

    def __init__(
        self, words: Sequence[str], log: Path, prepare: Callable[[], None] | None = None, patience: float = PATIENCE
    ) -> None:
        cfg = _configured(words)
        self.log, self.start, self.patience = log, time.monotonic(), patience
        log.write_bytes(b"")
        self.pid = os.fork()
        if self.pid == 0:
            _run_in_child(cfg, words, log, prepare)

    def wait(self, *, send: int = 0, after: float = 0.0, when: Callable[[], bool] | None = None) -> Ended:
        """Wait for the end.

        Args:
            send: signal to send once; 0 for none.
            after: seconds before that.
            when: condition for that; it may disturb the run itself.

        Raises:
            TimeoutError: it hangs.
        """
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            age = time.monotonic() - self.start
            if pid:
                return Ended(os.waitstatus_to_exitcode(status), self.log.read_text(encoding="utf-8"), age)
            if send and age >= after and (when is None or when()):
                os.kill(self.pid, send)
                send = 0
            if age > self.patience:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"after {self.patience:.0f} s: {self.log.read_text(encoding='utf-8')}")
            time.sleep(INTERVAL)


class SharedText:
    """A few bytes that a child writes and its parent reads, also after a SIGKILL."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def text(self) -> str:
        """The last text."""
        return self._bytes[1 : 1 + self._bytes[0]].decode()

    @text.setter
    def text(self, value: str) -> None:
        raw = value.encode()[:255]
        self._bytes[: 1 + len(raw)] = bytes([len(raw)]) + raw


def _configured(words: Sequence[str]) -> DictConfig:
    """The configuration of a command line, with Hydra's own part."""
    late = dict(word.split("=", 1) for word in words if word.split("=")[0] in LATE)
    cfg = _composed(tuple(word for word in words if word.split("=")[0] not in LATE)).copy()
    for key, value in late.items():
        OmegaConf.update(cfg, key, value)
    return cfg


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(HOME / "conf")):
        return compose("run", list(words), return_hydra_config=True)


def _run_in_child(cfg: DictConfig, words: Sequence[str], log: Path, prepare: Callable[[], None] | None) -> None:
    """Call `main` with a composed configuration, and exit."""
    code = BROKEN
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
        job = cli._job.__wrapped__  # the function that Hydra would call with the configuration
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
