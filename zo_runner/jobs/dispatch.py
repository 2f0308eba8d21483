"""One run of a composed configuration, made once. Torch is imported when a run starts, not before."""

import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from zo_runner.config import validation
from zo_runner.config.identity import identify, run_folder
from zo_runner.config.ineffective_keys import cautions
from zo_runner.errors import RunWarning
from zo_runner.jobs.console import quiet
from zo_runner.jobs.out_of_memory import shortage_told
from zo_runner.records.locks import Busy, hold, lock_file
from zo_runner.records.result import RunResult
from zo_runner.records.run_directory import RunDirectory, require_writable

Execute = Callable[[DictConfig, dict[str, Any], RunDirectory], RunResult]

# Seconds between looks at a run that another process is at.
_PATIENCE = 0.5


def carry_out(cfg: DictConfig, chosen: Collection[str], *, wait: bool) -> tuple[Path, RunResult, bool]:
    """Make the run, or find it made.

    Args:
        cfg: a composed configuration.
        chosen: the keys that the command line names, for cautions.
        wait: True to wait while another process is at this run.

    Returns:
        The run's folder, its result, and True if it had been made before.

    Raises:
        UserError: bad input, before anything is written.
        Busy: another process is at this run, and it is not to be waited for.
        Fault: memory ran out.
    """
    validation.check(cfg)
    for caution in cautions(cfg, set(chosen)):
        warnings.warn(caution, RunWarning, stacklevel=2)
    known = identify(cfg)
    directory = RunDirectory(run_folder(cfg, known))
    if (made := directory.result()) and made.is_complete(tested=cfg.runtime.test):
        directory.tidy_up(made)
        return directory.path, made, True
    root = Path(cfg.runtime.root)
    require_writable(root)
    told = False
    while True:
        try:
            with hold(lock_file(root, directory.run_id)):
                made = directory.result()  # another process may have made it by now
                if made and made.is_complete(tested=cfg.runtime.test):
                    return directory.path, made, True
                execute = _executor(cfg.job)
                quiet()  # again: some libraries set filters of their own when they are imported
                with shortage_told(cfg, lambda: None):
                    return directory.path, execute(cfg, known, directory), False
        except Busy as busy:
            if not wait:
                raise
            if not told:
                warnings.warn(f"{busy} Waiting for it.", RunWarning, stacklevel=2)
            told = True
            time.sleep(_PATIENCE)


def _executor(job: str) -> Execute:
    if job == "evaluate":
        from zo_runner.jobs import evaluate

        return evaluate.execute
    if job == "probe":
        from zo_runner.jobs import probe

        return probe.execute
    from zo_runner.jobs import train

    return train.execute
