"""Callbacks of a run: its files, the tracker and the progress bar."""

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
    """Write every step and event as it happens.

    Args:
        directory: the run's folder, started or resumed.
        tracker: mirror of the metrics.
        save: writes the trained parameters into a folder.
        title: shown before the progress bar.
        ledger: the bar shows the share of its budget that is spent, in its unit.
        seed: of the direction stream, for the journal.
        resume: state that the run continues from; later events that are recorded already are not recorded again.

    Attributes:
        facts: results of the calibration, for the checkpoints, ready for JSON.
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
        resume: ResumeState | None = None,
    ) -> None:
        self.directory, self.tracker, self.save = directory, tracker, save
        self.ledger, self.seed = ledger, seed
        self.facts: dict[str, Any] = resume.state["facts"] if resume else {}
        self._events = resume.state["events"] if resume else 0
        self._on_record = self._events + (directory.go_on(self._events) if resume else 0)
        self.journal = Journal(directory.path / journal.NAME, directory.run_id, resume.last if resume else None)
        self.bar = tqdm(
            total=ledger.budget.limit,
            desc=title,
            unit=f" {ledger.budget.unit}",
            unit_scale=ledger.budget.unit == "tokens",
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def on_step(self, record: StepRecord, readings: dict[str, float]) -> None:
        """Journal the step and move the bar."""
        row = record.as_row()
        self.journal.append({"step": row.pop("step"), "seed": self.seed, **row, "spent": self.ledger.state()})
        if not self.bar.disable:
            # Whole seconds, and none beyond the last: the last step may overshoot, and the bar would lose its end.
            self.bar.update(min(int(self.ledger.spent), self.ledger.budget.limit) - self.bar.n)
            snr = readings.get("zo/fd_snr_db")
            self.bar.set_postfix_str(
                f"loss {record.report.loss:.3f}" + ("" if snr is None else f", FD-SNR {snr:.0f} dB"), refresh=False
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
