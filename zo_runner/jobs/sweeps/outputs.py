"""Outputs of a sweep: its plan, tables, figures and page. No torch.

<root>/sweeps/<name>-<scale>-<digits>/
    plan.json                                  every run: stage, command, folder, status
    table.md .csv .tex   cost.md .csv .tex     see zo_runner/reporting/tables/tables.py
    <figure>.png .svg                          see zo_runner/reporting/figures/sweep_figures.py
    report.html                                     see zo_runner/reporting/html_report.py
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from zo_runner.errors import invalid, one_of
from zo_runner.jobs.sweeps.runs import PlannedRun, SweepRuns
from zo_runner.jobs.sweeps.selection import POINTS
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.result import TrainResult
from zo_runner.records.run_directory import read_meta
from zo_runner.reporting import html_report
from zo_runner.reporting.figures import sweep_figures
from zo_runner.reporting.tables import published, tables


def write(runs: SweepRuns, cfg: DictConfig, folder: Path) -> tuple[str, list[str]]:
    """Write everything from what lies on disk, whatever is missing.

    Returns:
        The tables as Markdown, and one sentence for each table that was refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "plan.json", json.dumps(list(_plan(runs)), indent=1) + "\n")
    if any(planned[0][0].cfg.job != "train" for planned in runs.candidates):
        return "", []  # probes have reports of their own, and no table
    protocol = _protocol(cfg.sweep, _searches(runs))
    made, refused = tables.build(_results(runs), protocol)
    text = tables.write(made, refused, folder, protocol)
    figures = sweep_figures.figures(list(_curves(runs)), folder, tuple(cfg.sweep.figures))
    write_atomic(folder / "report.html", html_report.render(_page(runs, cfg, folder, made, refused, figures)))
    _track(cfg, folder, made)
    return text, refused


def check(sweep: DictConfig) -> None:
    """Find what would only come to light when the runs are made.

    Raises:
        UserError: an unknown choice, unit, figure or block of published numbers.
    """
    if sweep.select not in POINTS:
        raise invalid("sweep.select", sweep.select, one_of(POINTS))
    if unknown := [kind for kind in sweep.figures if kind not in sweep_figures.KINDS]:
        raise invalid("sweep.figures", unknown[0], one_of(sweep_figures.KINDS))
    published.blocks(_protocol(sweep, {}).published)


def _protocol(sweep: DictConfig, searches: dict[str, tables.Search]) -> tables.Protocol:
    return tables.Protocol(
        baseline=sweep.baseline,
        match=sweep.match,
        allow_unmatched=sweep.allow_unmatched,
        searches=searches,
        published=tuple(sweep.published),
        caption=sweep.title,
    )


def _track(cfg: DictConfig, folder: Path, made: Sequence[tables.Table]) -> None:
    """The tables in Weights & Biases, as a run of the sweep's own."""
    if cfg.tracker.name == "none":
        return
    from zo_runner.records.tracking import WandbTracker

    tracker = WandbTracker(
        folder,
        project=cfg.tracker.project,
        entity=cfg.tracker.entity,
        mode=cfg.tracker.mode,
        name=folder.name,
        group="sweeps",
        config={"sweep": cfg.sweep.name, "scale": cfg.scale},
    )
    for table in made:
        for name, frame in (("scores", table.scores), ("costs", table.costs)):
            plain = frame.astype(object).where(frame.notna(), None)
            tracker.table(f"{name}/{table.task}/{table.model}", list(map(str, plain.columns)), plain.values.tolist())
    tracker.finish({})


def _results(runs: SweepRuns) -> list[TrainResult]:
    """One result per run of stage two, or its placeholder."""
    found = []
    for i, row in enumerate(runs.candidates):
        planned = runs.seeds_of(i)
        found += [run.trained() or run.placeholder_result() for run in planned]
        if not planned:
            # Its choice is open: tuning is not finished, or every candidate diverged.
            tried = [run.result() for planned in row for run in planned]
            diverged = all(result and result.status == "diverged" for result in tried)
            found += [run.placeholder_result("diverged" if diverged else "missing") for run in row[0]]
    return found


def _searches(runs: SweepRuns) -> dict[str, tables.Search]:
    """The search of stage one for each row, under the configuration that it chose."""
    found = {}
    for i, row in enumerate(runs.candidates):
        planned = runs.seeds_of(i)
        if len(row) == 1 or not planned:
            continue
        tried = (run.trained() for trials in row for run in trials)
        queries = sum(result.charged("queries") for result in tried if result)
        search = tables.Search(len(row), len(runs.plan.tune_seeds), int(queries), planned[0].candidate)
        found[tables.configuration(planned[0].known)] = search
    return found


def _curves(runs: SweepRuns) -> Iterator[sweep_figures.Curve]:
    for i, row in enumerate(runs.plan.rows):
        planned = runs.seeds_of(i) or runs.candidates[i][0]
        made = [(run, result) for run in planned if (result := run.trained()) and result.is_complete(tested=True)]
        done = [(run, result) for run, result in made if result.status == "done"]
        cfg = planned[0].cfg
        yield sweep_figures.Curve(
            label=row.label,
            method=cfg.method.name,
            rank=planned[0].rank,
            x={key: value for key, value in row.words.items() if key not in ("method", "rank", "task", "model")},
            task=cfg.task.name,
            model=cfg.model.name,
            results=[result for _, result in done],
            runs=[run.path for run, _ in done],
            diverged=len(made) - len(done),
            missing=len(planned) - len(made),
        )


def _plan(runs: SweepRuns) -> Iterator[dict[str, Any]]:
    for stage, planned in ((1, runs.trials), (2, runs.finals)):
        for run in planned:
            result = run.result()
            yield {
                "stage": stage,
                "row": run.row.label,
                "seed": run.seed,
                "tuned": {key: str(value) for key, value in run.candidate.items()},
                "command": " ".join(["zo-run", *run.words]),
                "run": str(run.path),
                "status": result.status if result else "missing",
            }


def _page(
    runs: SweepRuns,
    cfg: DictConfig,
    folder: Path,
    made: Sequence[tables.Table],
    refused: Sequence[str],
    figures: Sequence[Path],
) -> html_report.Page:
    listed, missing, versions = [], [], defaultdict[str, set[str]](set)
    for stage, planned in ((1, runs.trials), (2, runs.finals)):
        for run in planned:
            result = run.trained() or run.placeholder_result()
            if not result.is_complete(tested=stage == 2):
                missing.append(f"stage {stage}: {' '.join(run.words)}: {result.error or 'not run'}")
            if result.status == "missing":
                continue
            link = os.path.relpath(run.path, folder)
            listed.append(html_report.Run(run.row.label, run.seed, stage, result.status, _summary(run, result), link))
            for name, value in _versions(run.path):
                versions[name].add(value)
    for i, row in enumerate(runs.plan.rows):
        if runs.chosen(i) is None:
            missing.append(
                f"stage 2: {row.label}: its configuration is not known, since stage 1 is not finished or diverged"
            )
    tuned = {
        "stage one": f"{max(len(row) for row in runs.candidates)} configurations a row on seeds "
        f"{', '.join(map(str, runs.plan.tune_seeds))}, chosen by {cfg.sweep.select} dev; test is not read",
    }
    settings = {key: str(value) for key, value in runs.plan.settings.items()}
    protocol = {
        "scale": cfg.scale,
        **(tuned if runs.plan.tuned else {}),
        "seeds": ", ".join(map(str, runs.plan.seeds)),
        **{key: value for key, value in settings.items() if not key.startswith(("runtime.", "tracker"))},
        **runs.plan.protocol,
    }
    return html_report.Page(
        title=cfg.sweep.title or cfg.sweep.name,
        question=cfg.sweep.question,
        protocol=protocol,
        tables=[pair for table in made for pair in _captioned(table)],
        figures=[(file.stem, file.read_text(encoding="utf-8")) for file in figures if file.suffix == ".svg"],
        versions={name: ", ".join(sorted(values)) for name, values in sorted(versions.items())},
        runs=listed,
        missing=missing,
        refusals=list(refused),
        notes=[f"{table.title}: {note}" for table in made for note in (table.warning, *table.notes) if note],
    )


def _captioned(table: tables.Table) -> list[tuple[str, pd.DataFrame]]:
    costs = f"Costs, {table.title}. {table.costs_caption}"
    return [(table.title, table.texts()), (costs, table.cost_texts())]


def _summary(run: PlannedRun, result: TrainResult) -> str:
    tuned = " ".join(f"{key}={value}" for key, value in run.candidate.items())
    best = result.score("dev", "best")
    dev = result.error or "" if best is None else f"dev {best:.4g}"
    return "; ".join(filter(None, (tuned, dev)))


def _versions(run: Path) -> Iterator[tuple[str, str]]:
    """Device, dtype, packages and commit of a run, from its meta.json."""
    meta = read_meta(run)
    yield from ((key, str(meta[key])) for key in ("device", "dtype", "python") if key in meta)
    packages: Any = meta.get("packages")
    if isinstance(packages, dict):
        yield from ((name, str(version)) for name, version in packages.items())
    source: Any = meta.get("source")
    if isinstance(source, dict) and "commit" in source:
        yield "commit", f"{source['commit']}{' with uncommitted changes' if source.get('dirty') else ''}"
