"""What a sweep ends in: its plan, tables, figures and page. No torch.

<root>/sweeps/<name>-<scale>-<digits>/
    plan.json                                  every run: stage, command, folder, status
    table.md .csv .tex   cost.md .csv .tex     see zo_runner/reporting/tables/tables.py
    <figure>.png .svg                          see zo_runner/reporting/figures/sweep_figures.py
    html_report.html                                see zo_runner/reporting/html_report.py
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig

from zo_runner.errors import invalid, one_of
from zo_runner.jobs.sweeps.plan import POINTS
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.run_directory import read_meta
from zo_runner.reporting import html_report
from zo_runner.reporting.figures import sweep_figures
from zo_runner.reporting.tables import published, tables

if TYPE_CHECKING:
    from zo_runner.jobs.sweeps.runs import Arena, Job


def write(arena: "Arena", cfg: DictConfig, folder: Path) -> tuple[str, list[str]]:
    """Write everything from what lies on disk, whatever is missing.

    Returns:
        The tables as Markdown, and one sentence for each table that was refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "plan.json", json.dumps(list(_plan(arena)), indent=1) + "\n")
    if any(jobs[0][0].cfg.job != "train" for jobs in arena.candidates):
        return "", []  # probes have reports of their own, and no table
    protocol = _protocol(cfg.sweep, _searches(arena))
    results = _results(arena)
    text, refused = tables.write(results, folder, protocol)
    made, _ = tables.build(results, protocol)
    figures = sweep_figures.figures(list(_curves(arena)), folder, tuple(cfg.sweep.figures))
    write_atomic(folder / "report.html", html_report.render(_page(arena, cfg, folder, made, refused, figures)))
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


def _results(arena: "Arena") -> list[dict[str, Any]]:
    """One result per run of stage two; where there is none, what shows as a hole."""
    found = []
    for i, row in enumerate(arena.candidates):
        jobs = arena.seeds_of(i)
        found += [job.result() or job.hole() for job in jobs]
        if not jobs:
            # Its choice is open: tuning is not finished, or every candidate diverged.
            tried = [job.result() for jobs in row for job in jobs]
            diverged = all(result and result["status"] == "diverged" for result in tried)
            found += [job.hole("diverged" if diverged else "missing") for job in row[0]]
    return found


def _searches(arena: "Arena") -> dict[str, tables.Search]:
    """What stage one spent on each row, under the configuration that it chose."""
    found = {}
    for i, row in enumerate(arena.candidates):
        jobs = arena.seeds_of(i)
        if len(row) == 1 or not jobs:
            continue
        queries = 0
        for result in (job.result() for trials in row for job in trials):
            queries += sum(result["queries"][purpose] for purpose in ("train", "calibration")) if result else 0
        search = tables.Search(len(row), len(arena.plan.tune_seeds), queries, jobs[0].candidate)
        found[tables.configuration(jobs[0].known)] = search
    return found


def _curves(arena: "Arena") -> Iterator[sweep_figures.Curve]:
    for i, row in enumerate(arena.plan.rows):
        jobs = arena.seeds_of(i) or arena.candidates[i][0]
        made = [(job, result) for job in jobs if (result := job.result()) and job.finished(tested=True)]
        done = [(job, result) for job, result in made if result["status"] == "done"]
        cfg = jobs[0].cfg
        adapter = cfg.method.trains == "adapter"
        yield sweep_figures.Curve(
            label=row.label,
            method=cfg.method.name,
            rank=cfg.rank if adapter else None,
            x={key: value for key, value in row.words.items() if key not in ("method", "rank", "task", "model")},
            task=cfg.task.name,
            model=cfg.model.name,
            results=[result for _, result in done],
            runs=[job.path for job, _ in done],
            diverged=len(made) - len(done),
            missing=len(jobs) - len(made),
        )


def _plan(arena: "Arena") -> Iterator[dict[str, Any]]:
    for stage, jobs in ((1, arena.trials), (2, arena.finals)):
        for job in jobs:
            result = job.result()
            status = result["status"] if result else "missing"
            yield {
                "stage": stage,
                "row": job.row.label,
                "seed": job.seed,
                "tuned": {key: str(value) for key, value in job.candidate.items()},
                "command": " ".join(["zo-run", *job.words]),
                "run": str(job.path),
                "status": status,
            }


def _page(
    arena: "Arena",
    cfg: DictConfig,
    folder: Path,
    made: Sequence[tables.Table],
    refused: Sequence[str],
    figures: Sequence[Path],
) -> html_report.Page:
    runs, missing, versions = [], [], defaultdict[str, set[str]](set)
    for stage, jobs in ((1, arena.trials), (2, arena.finals)):
        for job in jobs:
            result = job.result()
            if result is None or not job.finished(tested=stage == 2):
                missing.append(f"stage {stage}: {' '.join(job.words)}: {(result or {}).get('error') or 'not run'}")
            if result is None:
                continue
            link = os.path.relpath(job.path, folder)
            runs.append(html_report.Run(job.row.label, job.seed, stage, result["status"], _summary(job, result), link))
            for name, value in _versions(job.path):
                versions[name].add(value)
    for i, row in enumerate(arena.plan.rows):
        if arena.chosen(i) is None:
            missing.append(
                f"stage 2: {row.label}: its configuration is not known, since stage 1 is not finished or diverged"
            )
    tuned = {
        "stage one": f"{max(len(row) for row in arena.candidates)} configurations a row on seeds "
        f"{', '.join(map(str, arena.plan.tune_seeds))}, chosen by {cfg.sweep.select} dev; test is not read",
    }
    settings = {key: str(value) for key, value in arena.plan.settings.items()}
    protocol = {
        "scale": cfg.scale,
        **(tuned if arena.plan.tuned else {}),
        "seeds": ", ".join(map(str, arena.plan.seeds)),
        **{key: value for key, value in settings.items() if not key.startswith(("runtime.", "tracker"))},
        **arena.plan.protocol,
    }
    return html_report.Page(
        title=cfg.sweep.title or cfg.sweep.name,
        question=cfg.sweep.question,
        protocol=protocol,
        tables=[pair for table in made for pair in _captioned(table)],
        figures=[(file.stem, file.read_text(encoding="utf-8")) for file in figures if file.suffix == ".svg"],
        versions={name: ", ".join(sorted(values)) for name, values in sorted(versions.items())},
        runs=runs,
        missing=missing,
        refusals=list(refused),
        notes=[f"{table.title}: {note}" for table in made for note in (table.warning, *table.notes) if note],
    )


def _captioned(table: tables.Table) -> list[tuple[str, pd.DataFrame]]:
    costs = f"Costs, {table.title}. {table.costs_caption}"
    return [(table.title, table.texts()), (costs, table.cost_texts())]


def _summary(job: "Job", result: dict[str, Any]) -> str:
    tuned = " ".join(f"{key}={value}" for key, value in job.candidate.items())
    best = result.get("metrics", {}).get("dev", {}).get("best")
    dev = f"dev {best[result['metric']]:.4g}" if best else result.get("error") or ""
    return "; ".join(filter(None, (tuned, dev)))


def _versions(run: Path) -> Iterator[tuple[str, str]]:
    """What a run says of its surroundings."""
    meta = read_meta(run)
    yield from ((key, str(meta[key])) for key in ("device", "dtype", "python") if key in meta)
    packages: Any = meta.get("packages")
    if isinstance(packages, dict):
        yield from ((name, str(version)) for name, version in packages.items())
    source: Any = meta.get("source")
    if isinstance(source, dict) and "commit" in source:
        yield "commit", f"{source['commit']}{' with uncommitted changes' if source.get('dirty') else ''}"
