"""One job: what a composed configuration asks for, carried out once. Torch is imported only when a run starts."""

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
from zo_runner.records.run_directory import RunDirectory, is_complete, require_writable

# Whose queries and seconds count towards the budget.
CHARGED = ("train", "calibration")

Execute = Callable[[DictConfig, dict[str, Any], RunDirectory], dict[str, Any]]


# Seconds between looks at a run that another process is at.
_PATIENCE = 0.5


def carry_out(cfg: DictConfig, chosen: Collection[str], *, wait: bool) -> tuple[Path, dict[str, Any], bool]:
    """Make the run, or find it made.

    Args:
        cfg: a composed configuration.
        chosen: the keys that the command line names, for cautions.
        wait: whether to wait while another process is at this run.

    Returns:
        The run's folder, its result, and whether it had been made before.

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
    if (made := directory.result()) and is_complete(made, tested=cfg.runtime.test):
        directory.tidy_up(made)
        return directory.path, made, True
    root = Path(cfg.runtime.root)
    require_writable(root)
    told = False
    while True:
        try:
            with hold(lock_file(root, directory.run_id)):
                made = directory.result()  # another process may have made it by now
                if made and is_complete(made, tested=cfg.runtime.test):
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
        from zo_runner.jobs.evaluate import execute
    elif job == "probe":
        from zo_runner.jobs.probe import execute
    else:
        from zo_runner.jobs.train import execute
    return execute


def closing_line(result: dict[str, Any], path: Path, *, cached: bool) -> str:
    """What was reached and where it lies, in one line."""
    if result["job"] == "probe":
        spent = f"{result['queries']['probe']} queries, {result['seconds']['total']:.0f} s"
        return f"{result['report']}\nprobe of {result['cells']} cells{', cached' if cached else ''}; {spent}; {path}"
    if result["job"] == "evaluate":
        shots = f", {result['shots']}-shot" if result["shots"] else ("" if result["adapter"] else ", zero-shot")
        what = result["model"] + ("" if result["adapter"] is None else f" with {result['adapter']}") + shots
        split, score = next(iter(result["metrics"].items()))
        shown = ", ".join(_score(score, name) for name in score if name != "loss")
        return (
            f"{what}: {'cached, ' if cached else ''}{split} {shown}, loss {score['loss']:.4f}; "
            f"{result['examples']} examples, {result['seconds']['eval']:.1f} s; {path}"
        )
    return "; ".join(_training(result, cached=cached)) + f"; {path}"


def _training(result: dict[str, Any], *, cached: bool) -> list[str]:
    rank = "" if result["rank"] is None else f" rank={result['rank']}"
    parts = [f"{result['method']}{rank} seed={result['seed']}: {'cached, ' if cached else ''}{result['status']}"]
    dev, test = result["metrics"].get("dev", {}), result["metrics"].get("test", {})
    if result["error"]:
        parts.append(result["error"])
    if "best" in dev:
        before, best = (_score(dev[name], result["metric"]) for name in ("zero_shot", "best"))
        parts.append(f"dev {before} -> {best} at {dev['best']['queries']} queries")
    if test:
        parts.append("test " + ", ".join(f"{_score(s, result['metric'])} ({name})" for name, s in sorted(test.items())))
    snr = result["signal"].get("zo/fd_snr_db")
    if snr is not None:
        parts.append(f"FD-SNR {snr:.0f} dB")
    parts.append(_spent(result))
    parts.append(f"{result['seconds']['total']:.0f} s")
    return parts


def _spent(result: dict[str, Any]) -> str:
    """What was charged, of what was granted."""
    granted = result["budget"]
    queries, seconds = (sum(result[what][purpose] for purpose in CHARGED) for what in ("queries", "seconds"))
    if granted["tokens"] is not None:
        return f"{result['tokens']} of {granted['tokens']} tokens in {queries} queries"
    if granted["seconds"] is not None:
        return f"{seconds:.1f} of {granted['seconds']:g} s in {queries} queries"
    return f"{queries} of {granted['queries']} queries"


def _score(score: dict[str, Any], metric: str) -> str:
    """A score as people write it: percent, and the metric's name where it is not accuracy."""
    name = "" if metric == "accuracy" else f" {metric.replace('_', ' ')}"
    return f"{score[metric]:.2f}{name}" if metric == "perplexity" else f"{score[metric]:.1%}{name}"
