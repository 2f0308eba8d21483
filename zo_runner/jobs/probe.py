"""`job=probe`: finite-difference signal and its noise, for each kind of query, scaling and rank.

At a fixed point, K random directions u are drawn per cell of the grid {one atom, all atoms} x scalings x ranks, and
each gives an observed slope g and, where autograd fits in memory, the exact directional derivative <grad, u>. The point
is the initialisation (B = 0, several draws of A), what some training steps make of it, or a saved adapter.
"""

import time
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from zo_runner.jobs.assemble import first_prompt, head, task_setup, tracker_of
from zo_runner.jobs.probe_measurements import Study
from zo_runner.records.provenance import environment
from zo_runner.records.result import ProbeResult
from zo_runner.records.run_directory import RunDirectory
from zo_runner.reporting import probe_report
from zo_runner.training.memory import peak_memory, reset_peak_memory


def execute(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> ProbeResult:
    """Measure every cell, write the report and record the result.

    Args:
        cfg: a checked configuration.
        known: its identity.
        directory: where the report is written.

    Raises:
        UserError: bad input, found before anything is written.
    """
    started = time.perf_counter()
    reset_peak_memory()
    on = task_setup(cfg)
    train = on.encoder.encode(on.splits.train, "train")
    study = Study(cfg, on, train)
    facts = {**on.facts, "first_prompt": first_prompt(on.splits.train[0].prompt, train[0])}
    directory.start(OmegaConf.to_yaml(cfg, resolve=True), {**environment(), **facts})
    tracker = tracker_of(cfg, directory.path, f"probe {_title(cfg)}")
    cells = study.cells()
    text = probe_report.write(cells, directory.path, title=_title(cfg), facts=_facts(cfg, study))
    for name in ("probe", "exponents"):
        frame = pd.read_csv(directory.path / f"{name}.csv")
        tracker.table(name, list(frame.columns), frame.to_numpy(object).tolist())
    result = ProbeResult(
        **head(cfg, known, directory),
        status="done",
        cells=len(cells),
        queries={"probe": study.ledger.queries["train"], "noise": study.ledger.queries["noise"]},
        seconds={"total": time.perf_counter() - started},
        **peak_memory(*on.base.devices),
        report=text,
    )
    directory.finish(result)
    tracker.finish({"cells": len(cells)})  # it may wait for a network
    return result


def _title(cfg: DictConfig) -> str:
    return f"{cfg.task.name}, {cfg.model.name}"


def _facts(cfg: DictConfig, study: Study) -> dict[str, str]:
    point = "initialisation"
    if cfg.probe.adapter is not None:
        point = str(cfg.probe.adapter)
    elif cfg.probe.steps:
        point = f"after {cfg.probe.steps} steps of {cfg.method.name} at lr={cfg.method.lr:g}"
    measured = "measured by permuted re-evaluation" if cfg.noise.repeats else "not measured"
    return {
        "operating point": f"{point}, {cfg.probe.inits} draws of A" if cfg.probe.adapter is None else point,
        "directions per cell": str(study.per_init * cfg.probe.inits),
        "eps": f"{cfg.method.eps:g}",
        "alpha": f"{cfg.alpha:g}",
        "batch": f"{cfg.batch_size} examples",
        "dtype of the base": cfg.runtime.dtype,
        "noise": f"injected, std {cfg.noise.std:g}; {measured}" if cfg.noise.std else measured,
        "queries": f"{study.ledger.queries['train']} and {study.ledger.queries['noise']} for noise",
    }
