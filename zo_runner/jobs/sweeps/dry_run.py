"""The plan of a sweep before it runs: commands, budgets, hours. No torch."""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.records.run_directory import find_runs, read_result

if TYPE_CHECKING:
    from zo_runner.jobs.sweeps.runs import Arena, Job


def outline(arena: "Arena", root: Path) -> str:
    """The plan as text: every run as a command, what it may spend, and how long that would take here.

    Args:
        arena: the sweep.
        root: where finished runs lie, whose pace is taken.
    """
    paces, lines, hours, unknown = _Paces(root), [], 0.0, 0
    budgets: dict[str, float] = defaultdict(float)
    for stage, jobs in ((1, arena.trials), (2, _finals_as_known(arena))):
        lines.append(f"stage {stage}: {len(jobs)} runs")
        for job in jobs:
            done = job.finished(tested=stage == 2)
            lines.append(f"  {'done' if done else 'open'}  zo-run {' '.join(job.words)}")
            unit, amount = _budget(job)
            budgets[unit] += amount
            pace = paces.of(job)
            hours += 0 if done or pace is None else amount * pace / 3600
            unknown += not done and pace is None
    if len(arena.finals) < len(arena.plan.rows) * len(arena.plan.seeds):
        lines.append("  (stage 2 shows the first configuration of each row that is not tuned yet)")
    lines.append("in all: " + ", ".join(f"{amount:,.0f} {unit}" for unit, amount in budgets.items()))
    lines.append(f"hours left: {hours:.2f}, at the pace of finished runs below {root}")
    if unknown:
        lines[-1] += f", and {unknown} runs of a model and task that none of them has"
    return "\n".join(lines)


def _finals_as_known(arena: "Arena") -> list["Job"]:
    """Stage two; the first candidate stands for one that is not chosen yet."""
    found = []
    for i, row in enumerate(arena.candidates):
        found += arena.seeds_of(i) or [arena.job(row[0][0].row, row[0][0].candidate, seed) for seed in arena.plan.seeds]
    return found


def _budget(job: "Job") -> tuple[str, float]:
    return next((unit, float(job.cfg.budget[unit])) for unit in BUDGET_UNITS if job.cfg.budget[unit] is not None)


class _Paces:
    """Seconds per unit of budget, from finished runs: of the same method where there are some, else of any.

    A method that has not run yet is taken to be as fast as the others on its model, task and batch size.
    """

    def __init__(self, root: Path) -> None:
        self.found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for run in find_runs(root):
            result = read_result(run / "result.json")
            if result is None or result["job"] != "train" or result["status"] != "done":
                continue
            spent = {
                "queries": sum(result["queries"][purpose] for purpose in ("train", "calibration")),
                "tokens": result["tokens"],
                "seconds": sum(result["seconds"][purpose] for purpose in ("train", "calibration")),
            }
            for unit, amount in spent.items():
                place = (unit, result["model"], result["task"], result["identity"]["batch_size"])
                for key in (place, (*place, result["method"])):
                    self.found[key].append(result["seconds"]["total"] / amount)

    def of(self, job: "Job") -> float | None:
        """The median pace, None where nothing comparable has run."""
        unit, _ = _budget(job)
        place = (unit, job.cfg.model.name, job.cfg.task.name, job.cfg.batch_size)
        paces = self.found.get((*place, job.cfg.method.name)) or self.found.get(place)
        return statistics.median(paces) if paces else None
