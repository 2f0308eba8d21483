"""Who watches a run: its files, the tracker and the progress bar."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zo_runner.budget import Ledger
from zo_runner.methods.base import StepReport
from zo_runner.records import RunDirectory
from zo_runner.tracking import Tracker


class RunObserver:
    """Writes every step and event as it happens.

    Args:
        directory: the run's folder, started.
        tracker: mirror of the metrics.
        save: writes the trained parameters into a folder.
        title: shown before the progress bar.
        ledger: what the bar shows: how much of the budget is spent, in the unit it is granted in.
        seed: of the direction stream, for the journal.
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
    ) -> None:
        self.directory, self.tracker, self.save = directory, tracker, save
        self.ledger, self.seed = ledger, seed
        self.bar = tqdm(
            total=ledger.budget.limit,
            desc=title,
            unit=f" {ledger.budget.unit}",
            unit_scale=ledger.budget.unit == "tokens",
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def stepped(self, report: StepReport, readings: dict[str, float]) -> None:
        """Journal the step and move the bar."""
        row: dict[str, Any] = {"step": report.step, "seed": self.seed, "slopes": report.slopes, "lr": report.lr}
        if report.atom is not None:
            row["atom"] = report.atom
        if report.curvature is not None:
            row["curvature"] = report.curvature
        self.directory.append("journal.jsonl", row)
        if not self.bar.disable:
            # Whole seconds, and none beyond the last: the last step may overshoot, and the bar would lose its end.
            self.bar.update(min(int(self.ledger.spent), self.ledger.budget.limit) - self.bar.n)
            snr = readings.get("zo/fd_snr_db")
            self.bar.set_postfix_str(
                f"loss {report.loss:.3f}" + ("" if snr is None else f", FD-SNR {snr:.0f} dB"), refresh=False
            )

    def logged(self, event: dict[str, Any]) -> None:
        """One event to metrics.jsonl and the tracker."""
        self.directory.append("metrics.jsonl", event)
        self.tracker.log(event)

    def improved(self) -> None:
        """Keep the parameters as `best/`."""
        self.directory.replace("best", self.save)

    def close(self, summary: Mapping[str, Any]) -> None:
        """End the bar and the tracker."""
        self.bar.close()
        self.tracker.finish(summary)
