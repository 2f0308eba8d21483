"""The plan of a sweep before it runs: commands, budgets, hours. No torch."""

import statistics
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.errors import Fault
from zo_runner.jobs.sweeps.runs import PlannedRun, SweepRuns
from zo_runner.records.result import TrainResult, read_result
from zo_runner.records.run_directory import find_runs


def outline(runs: SweepRuns, root: Path) -> str:
    """The plan as text: every run as a command, what it may spend, and how long that would take here.

    Args:
        runs: the sweep.
        root: where finished runs lie, whose pace is taken.
    """
    paces, lines, hours, unknown = _Paces(root), [], 0.0, 0
    budgets: dict[str, float] = defaultdict(float)
    for stage, planned in ((1, runs.trials), (2, _finals_as_known(runs))):
        lines.append(f"stage {stage}: {len(planned)} runs")
        for run in planned:
            done = run.finished(tested=stage == 2)
            lines.append(f"  {'done' if done else 'open'}  zo-run {' '.join(run.words)}")
            unit, amount = _budget(run)
            budgets[unit] += amount
            pace = paces.of(run)
            hours += 0 if done or pace is None else amount * pace / 3600
            unknown += not done and pace is None
    if len(runs.finals) < len(runs.plan.rows) * len(runs.plan.seeds):
        lines.append("  (stage 2 shows the first configuration of each row that is not tuned yet)")
    lines.append("in all: " + ", ".join(f"{amount:,.0f} {unit}" for unit, amount in budgets.items()))
    lines.append(f"hours left: {hours:.2f}, at the pace of finished runs below {root}")
    if unknown:
        lines[-1] += f", and {unknown} runs of a model and task that none of them has"
    return "\n".join(lines)


def _finals_as_known(runs: SweepRuns) -> list[PlannedRun]:
    """Stage two; the first candidate stands for one that is not chosen yet."""
    found = []
    for i, row in enumerate(runs.candidates):
        found += runs.seeds_of(i) or [runs.job(row[0][0].row, row[0][0].candidate, seed) for seed in runs.plan.seeds]
    return found


def _budget(run: PlannedRun) -> tuple[str, float]:
    return next((unit, float(run.cfg.budget[unit])) for unit in BUDGET_UNITS if run.cfg.budget[unit] is not None)


class _Paces:
    """Seconds per unit of budget, from finished runs: of the same method where there are some, else of any.

    A method that has not run yet is taken to be as fast as the others on its model, task and batch size.
    """

    def __init__(self, root: Path) -> None:
        self.found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for run in find_runs(root):
            with suppress(Fault):  # a broken result has no pace
                result = read_result(run / "result.json")
                if isinstance(result, TrainResult) and result.status == "done":
                    self._note(result)

    def _note(self, result: TrainResult) -> None:
        for unit in BUDGET_UNITS:
            place = (unit, result.model, result.task, result.identity["batch_size"])
            for key in (place, (*place, result.method)):
                self.found[key].append(result.seconds["total"] / result.charged(unit))

    def of(self, run: PlannedRun) -> float | None:
        """The median pace, None where nothing comparable has run."""
        unit, _ = _budget(run)
        place = (unit, run.cfg.model.name, run.cfg.task.name, run.cfg.batch_size)
        paces = self.found.get((*place, run.cfg.method.name)) or self.found.get(place)
        return statistics.median(paces) if paces else None
