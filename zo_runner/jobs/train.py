"""`job=train`: prepare a run, fit it, finish it with a result.json whatever happens."""

import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config.credentials import redacted
from zo_runner.config.derived import granted
from zo_runner.errors import Fault, RunWarning
from zo_runner.jobs import holdout
from zo_runner.jobs.assemble import Parts, assemble, head, tracker_of
from zo_runner.jobs.calibrate import calibrated, noise_of, schedule_of
from zo_runner.jobs.out_of_memory import shortage_told
from zo_runner.models import lora
from zo_runner.models.evaluator import Score
from zo_runner.models.flops import FlopMeter
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.provenance import differences, environment
from zo_runner.records.result import TrainResult
from zo_runner.records.run_directory import RunDirectory, read_meta
from zo_runner.training import checkpoint
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.checkpoint import ResumeState, resume_state
from zo_runner.training.divergence import Guard
from zo_runner.training.interrupts import uninterrupted
from zo_runner.training.memory import StepMemory, peak_memory, reset_peak_memory
from zo_runner.training.outcome import TrainingOutcome
from zo_runner.training.recorder import Recorder
from zo_runner.training.step import Stepper
from zo_runner.training.trainer import Trainer


@dataclass
class TrainingRun:
    """A run on its way from configuration to result.json.

    Attributes:
        cfg: a checked configuration.
        directory: of the run.
        parts: model, method, data.
        ledger: budget and counters.
        resume: state of an interrupted run to continue from; None to begin.
        outcome: of the training.
        memory: of a step, None where it is not measured.
        started: clock reading at the start, in seconds.
        result: fields of the result so far.
    """

    cfg: DictConfig
    directory: RunDirectory
    parts: Parts
    ledger: Ledger
    resume: ResumeState | None
    outcome: TrainingOutcome
    memory: StepMemory | None
    started: float
    result: dict[str, Any]


def execute(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> TrainResult:
    """Train one configuration and record its result.

    Args:
        cfg: a checked configuration.
        known: its identity.
        directory: where the run is recorded.

    Raises:
        UserError: bad input, found before anything is written.
        KeyboardInterrupt: after status "interrupted" is on disk.
        Exception: anything else, after status "failed" and error.txt are on disk.
    """
    made = directory.result()
    if isinstance(made, TrainResult) and made.is_complete(tested=False):
        return holdout.read_later(cfg, directory, made)
    run = prepare(cfg, known, directory)
    with ExitStack() as beginning:
        # Defer signals until a result can be written.
        beginning.enter_context(uninterrupted())
        recorder = _begin(run, known)
        try:
            with _record_failure(run.result, directory), shortage_told(cfg, lambda: run.ledger.phase):
                beginning.close()
                fit(run, recorder)
        finally:
            result = finish(run, recorder)
    directory.remove(checkpoint.NAME)  # nothing is left to resume
    return result


def prepare(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> TrainingRun:
    """Build every part of a run, and find the state to continue from. Nothing is written.

    Raises:
        UserError: bad input.
        Fault: a file of the interrupted run is damaged.
    """
    started = time.perf_counter()
    reset_peak_memory()
    parts = assemble(cfg)
    resume = None
    if cfg.runtime.resume and directory.may_be_under_way:
        resume = resume_state(directory.path, directory.run_id, replays=parts.method.replayable)
    flops = FlopMeter(parts.base.model)
    ledger = Ledger(Budget(**granted(cfg)), lambda: flops.total)
    result: dict[str, Any] = {**_head(cfg, known, directory), "status": "failed", "error": None, "metrics": {}}
    result["tested"] = cfg.runtime.test
    result |= {"metric": parts.evaluator.scoring.metrics[0], "provenance": parts.provenance}
    memory = StepMemory() if cfg.runtime.measure_memory else None
    return TrainingRun(cfg, directory, parts, ledger, resume, TrainingOutcome(), memory, started, result)


def fit(run: TrainingRun, recorder: Recorder) -> None:
    """Calibrate, train, keep the last parameters, read test."""
    cfg, parts, outcome = run.cfg, run.parts, run.outcome
    if run.resume is None:
        recorder.facts = calibrated(cfg, parts, run.ledger, recorder.on_log)
    run.result |= recorder.facts
    _trainer(run, recorder).fit(run.resume)
    holdout.keep(parts, run.directory, outcome, tested=cfg.runtime.test)
    test = holdout.read_at_end(parts, run.directory, run.ledger, outcome) if cfg.runtime.test else {}
    run.result |= {"status": outcome.status, "error": outcome.error, "metrics": _metrics(outcome, test)}


def finish(run: TrainingRun, recorder: Recorder) -> TrainResult:
    """Write result.json, whatever the status, and close the logs and the tracker."""
    total = time.perf_counter() - run.started + (run.resume.seconds if run.resume else 0.0)
    run.result |= _tail(run.ledger, run.outcome, total) | peak_memory(*run.parts.base.devices)
    run.result["memory_bytes"] = run.memory.facts(run.parts.model) if run.memory else {}
    result = TrainResult(**run.result)
    try:
        with uninterrupted():
            run.directory.finish(result)
    finally:  # which may wait for a network
        recorder.close({"status": result.status, **_flat(result.metrics)})
    return result


def _begin(run: TrainingRun, known: dict[str, Any]) -> Recorder:
    """Start the run directory, or take it up again, and open its logs."""
    config_yaml = OmegaConf.to_yaml(run.cfg, resolve=True)
    meta = {**environment(), **run.parts.facts, "identity": known}
    if run.resume is None:
        run.directory.start(config_yaml, meta)
    title = label(run.cfg)
    recorder = Recorder(
        run.directory,
        tracker_of(run.cfg, run.directory.path, title),
        lambda folder: lora.save(run.parts.model, folder),
        title=title,
        ledger=run.ledger,
        seed=run.cfg.seeds.direction,
        resume=run.resume,
    )
    if run.resume is not None:
        _note_resume(run.directory, config_yaml, meta, run.resume)
    return recorder


@contextmanager
def _record_failure(result: dict[str, Any], directory: RunDirectory) -> Iterator[None]:
    """Record a failure in result.json and error.txt."""
    try:
        yield
    except KeyboardInterrupt:
        result["status"] = "interrupted"
        raise
    except Exception as error:  # whatever ended the run, its status and the traceback must be on disk
        reason = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
        result["error"] = redacted(reason)
        with suppress(Fault):  # the disk may be what failed
            write_atomic(directory.path / "error.txt", redacted(traceback.format_exc()))
        raise


def _note_resume(directory: RunDirectory, config_yaml: str, meta: dict[str, Any], resume: ResumeState) -> None:
    """Note the resumption in meta.json and warn of changed software. Both files may have been lost."""
    begun = read_meta(directory.path) or meta
    if differs := ", ".join(differences(begun, meta)):
        warnings.warn(f"The run began with {differs}: its next steps may round differently.", RunWarning, stacklevel=2)
    at = resume.last.row["step"] + 1 if resume.last else 0
    now = {key: value for key, value in meta.items() if key != "identity"}
    directory.describe(config_yaml, {**begun, "resumed": [*begun.get("resumed", []), {"step": at, **now}]})


def _trainer(run: TrainingRun, recorder: Recorder) -> Trainer:
    cfg, parts = run.cfg, run.parts
    stepper = Stepper(
        method=parts.method,
        evaluator=parts.evaluator,
        train=parts.train,
        order=parts.order,
        ledger=run.ledger,
        noise=noise_of(cfg),
        rate=schedule_of(cfg, parts.method, run.result["calibration"]),
        memory=run.memory,
    )
    return Trainer(
        stepper=stepper,
        dev=parts.dev,
        eval_every=cfg.budget.eval_every,
        log_every=cfg.budget.log_every,
        checkpoint_every=cfg.runtime.checkpoint_every,
        observer=recorder,
        guard=Guard(**cfg.guard),
        outcome=run.outcome,
    )


def label(cfg: DictConfig) -> str:
    """Name of a run in one line: method, rank where it has one, seed."""
    rank = f" rank={cfg.rank}" if cfg.method.trains == "adapter" else ""
    return f"{cfg.method.name}{rank} seed={cfg.seed}"


def _head(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    adapter = cfg.method.trains == "adapter"
    return {
        **head(cfg, known, directory),
        "method": cfg.method.name,
        "rank": cfg.rank if adapter else None,
        "alpha": cfg.alpha if adapter else None,
        "scaling": cfg.method.scaling if adapter else None,
        "lr": cfg.method.get("lr"),
        "eps": cfg.method.get("eps"),
    }


def _tail(ledger: Ledger, outcome: TrainingOutcome, total: float) -> dict[str, Any]:
    spent = ledger.summary()
    seconds = {**spent.pop("seconds"), "total": total, "step_median": outcome.step_median}
    best = outcome.best.score.loss if outcome.best else None
    return {
        **spent,
        "seconds": seconds,
        "signal": outcome.signal,
        "coverage": vars(outcome.coverage) if outcome.coverage else None,
        "objective": best,
    }


def _metrics(outcome: TrainingOutcome, test: dict[str, Score]) -> dict[str, Any]:
    dev = {name: point.as_dict() for name, point in outcome.dev().items() if point is not None}
    return {"dev": dev, "test": {name: score.as_dict() for name, score in test.items()}}


def _flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in metrics.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
