"""Weights & Biases beside our own files. metrics.jsonl and result.json are the truth, W&B mirrors them.

The only importer of wandb. A tracker never stops a run: without a key it records offline, without a network it falls
back to offline, when it fails on the way it warns once and stays silent, and for the end of an upload it waits so long
and no longer.
"""

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from zo_runner.errors import RunWarning

INIT_TIMEOUT_SECONDS = 15

# What is left after that is on disk, and `wandb sync` uploads it.
FINISH_TIMEOUT_SECONDS = 60


class Tracker(Protocol):
    """Destination of events besides metrics.jsonl."""

    def log(self, event: Mapping[str, Any]) -> None:
        """One event of metrics.jsonl."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of a report."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has ended."""


class NoTracker:
    """`tracker=none`."""

    def log(self, event: Mapping[str, Any]) -> None:
        """Nothing."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Nothing."""


class WandbTracker:
    """`tracker=wandb`: online when a key is configured, else offline.

    Args:
        folder: the run directory; W&B writes below `folder/wandb`.
        project: W&B project.
        entity: W&B entity, None for the account's default.
        mode: "auto", "online", "offline".
        name: display name.
        group: what the run is compared with.
        config: resolved configuration, plain containers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        entity: str | None,
        mode: str,
        name: str,
        group: str,
        config: dict[str, Any],
    ) -> None:
        self._alive = True
        options: dict[str, Any] = {
            "dir": str(folder),
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
        }
        mode = _resolve(mode)
        try:
            self._run = _init(mode, config, options)
        except Exception as error:  # whatever wandb raises, a tracker must not end a run of days
            if mode != "online":
                self._fail(error)
                return
            _warn(f"W&B cannot be reached ({_first_line(error)}); recording offline, `wandb sync` uploads it later")
            try:
                self._run = _init("offline", config, options)
            except Exception as second:  # as above
                self._fail(second)
                return
        self._run.define_metric("queries")
        self._run.define_metric("*", step_metric="queries")

    def log(self, event: Mapping[str, Any]) -> None:
        """Mirror one event; a list of numbers as the histogram of those that are finite."""
        if self._alive:
            try:
                self._run.log(_row(event))
            except Exception as error:  # as above
                self._fail(error)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of a report. What is no finite number is written as text, since JSON has no infinity."""
        import wandb

        if self._alive:
            try:
                data: list[Iterable[Any]] = [[_shown(value) for value in row] for row in rows]
                self._run.log({name: wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})
            except Exception as error:  # as above
                self._fail(error)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and close."""
        if self._alive:
            try:
                self._run.summary.update(
                    {k: v for k, v in summary.items() if not isinstance(v, float) or math.isfinite(v)}
                )
                self._run.finish()
            except Exception as error:  # as above
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._alive = False
        _warn(f"W&B stopped recording ({_first_line(error)}); metrics.jsonl goes on")
        _let_go()


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as W&B can hold it. A histogram of nothing is left out."""
    import wandb

    row: dict[str, Any] = {}
    for key, value in event.items():
        if not isinstance(value, list | tuple):
            row[key] = value
        # Rounded, because NumPy refuses to lay 64 bins between neighbouring floats.
        elif finite := [float(f"{x:.9g}") for x in value if math.isfinite(x)]:
            row[key] = wandb.Histogram(finite)
    return row


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _resolve(mode: str) -> str:
    """Mode that "auto" stands for. WANDB_MODE wins, as its users expect."""
    from_env = os.environ.get("WANDB_MODE", "")
    if from_env in ("online", "offline", "disabled"):
        return from_env
    if mode != "auto":
        return mode
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    """True if a key is configured; no server is contacted."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _init(mode: str, config: dict[str, Any], options: dict[str, Any]) -> Any:
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    os.environ.setdefault("WANDB_SILENT", "true")  # also the login, which does not ask the settings below
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of wandb's own faults, which complains where it fails
    settings = wandb.Settings(
        silent=True,
        finish_timeout=FINISH_TIMEOUT_SECONDS,
        finish_timeout_raises=True,
        console="off",
        init_timeout=INIT_TIMEOUT_SECONDS,
        x_disable_stats=True,
        disable_git=True,
        disable_code=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wandb.init(mode=mode, config=config, reinit="finish_previous", settings=settings, **options)  # type: ignore[arg-type]  # mode is one of wandb's words


def _let_go() -> None:
    """Forget a service that may be dead: wandb would stumble over it in the next run, and when the process ends."""
    import wandb

    with contextlib.suppress(Exception, SystemExit):  # it would end this process with the exit code of its service
        wandb.teardown()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _warn(message: str) -> None:
    warnings.warn(message, RunWarning, stacklevel=3)
