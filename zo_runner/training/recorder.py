"""Who watches a run: its files, the tracker and the progress bar."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zo_runner.methods.base import Method
from zo_runner.records import journal
from zo_runner.records.journal import Journal
from zo_runner.records.run_directory import RunDirectory
from zo_runner.records.tracking import Tracker
from zo_runner.training import checkpoint
from zo_runner.training.budget import Ledger
from zo_runner.training.checkpoint import ResumeState
from zo_runner.training.outcome import StepRecord


class Recorder:
    """Writes every step and event as it happens.

    Args:
        directory: the run's folder, started or taken up.
        tracker: mirror of the metrics.
        save: writes the trained parameters into a folder.
        title: shown before the progress bar.
        ledger: what the bar shows: how much of the budget is spent, in the unit it is granted in.
        seed: of the direction stream, for the journal.
        past: what the run goes on from; what happened after it and is on record already is not recorded again.

    Attributes:
        facts: what was found before the first step, for the checkpoints, as JSON holds it.
    """

    def __init__(
        self,
        directory: RunDirectory,
        tracker: Tracker,
        save: Callable[[Path], None],
        *,
        title: str,
        ledger: Ledger,
        seed: int,
        past: ResumeState | None = None,
    ) -> None:
        self.directory, self.tracker, self.save = directory, tracker, save
        self.ledger, self.seed = ledger, seed
        self.facts: dict[str, Any] = past.state["facts"] if past else {}
        self._events = past.state["events"] if past else 0
        self._on_record = self._events + (directory.go_on(self._events) if past else 0)
        self.journal = Journal(directory.path / journal.NAME, directory.run_id, past.last if past else None)
        self.bar = tqdm(
            total=ledger.budget.limit,
            desc=title,
            unit=f" {ledger.budget.unit}",
            unit_scale=ledger.budget.unit == "tokens",
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def on_step(self, taken: StepRecord, readings: dict[str, float]) -> None:
        """Journal the step and move the bar."""
        row = taken.as_row()
        self.journal.append({"step": row.pop("step"), "seed": self.seed, **row, "spent": self.ledger.state()})
        if not self.bar.disable:
            # Whole seconds, and none beyond the last: the last step may overshoot, and the bar would lose its end.
            self.bar.update(min(int(self.ledger.spent), self.ledger.budget.limit) - self.bar.n)
            snr = readings.get("zo/fd_snr_db")
            self.bar.set_postfix_str(
                f"loss {taken.report.loss:.3f}" + ("" if snr is None else f", FD-SNR {snr:.0f} dB"), refresh=False
            )

    def on_log(self, event: dict[str, Any]) -> None:
        """One event to metrics.jsonl and the tracker."""
        self._events += 1
        if self._events > self._on_record:
            self.directory.log(event)
            self.tracker.log(event)

    def on_best(self) -> None:
        """Keep the parameters as `best/`."""
        self.directory.replace("best", self.save)

    def on_checkpoint(self, method: Method, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        self.journal.sync()
        known = {"run_id": self.directory.run_id, "steps": method.steps, "sum": self.journal.sum}
        saved = {**known, "events": self._events, "facts": self.facts, "trainer": state}
        checkpoint.save(self.directory.path / checkpoint.NAME, method, saved)

    def close(self, summary: Mapping[str, Any]) -> None:
        """End the bar, the journal and the tracker."""
        self.bar.close()
        self.journal.close()
        self.tracker.finish(summary)
