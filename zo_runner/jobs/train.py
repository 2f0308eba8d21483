"""execute(): train one configuration, test it, write the result."""

import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config.credentials import redacted
from zo_runner.config.derived import calibrates, granted
from zo_runner.config.schema import AUTO
from zo_runner.errors import Fault, RunWarning, invalid
from zo_runner.jobs import holdout
from zo_runner.jobs.assemble import Parts, assemble, head, tracker_of
from zo_runner.jobs.out_of_memory import shortage_told
from zo_runner.methods.base import Method, ZerothOrder
from zo_runner.models import lora
from zo_runner.models.evaluator import Score
from zo_runner.models.flops import FlopMeter
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.provenance import differences, environment
from zo_runner.records.run_directory import RunDirectory, is_complete, read_meta
from zo_runner.training import checkpoint
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.calibration import calibrate, longest_update
from zo_runner.training.calibration_queries import CalibrationQueries
from zo_runner.training.checkpoint import ResumeState, resume_state
from zo_runner.training.divergence import Guard
from zo_runner.training.interrupts import uninterrupted
from zo_runner.training.learning_rate import CurvatureSchedule
from zo_runner.training.memory import PeakMemory, StepMemory
from zo_runner.training.noise import Noise
from zo_runner.training.outcome import TrainingOutcome
from zo_runner.training.recorder import Recorder
from zo_runner.training.trainer import Trainer


def execute(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """Run one configuration and return what stands in its result.json.

    Args:
        cfg: a checked configuration.
        known: its identity.
        directory: where the run is recorded.

    Raises:
        UserError: bad input, found before anything is written.
        KeyboardInterrupt: after status "interrupted" is on disk.
        Exception: anything else, after status "failed" and error.txt are on disk.
    """
    if (made := directory.result()) and is_complete(made, tested=False):
        return holdout.read_later(cfg, directory, made)
    started = time.perf_counter()
    memory = PeakMemory()
    parts = assemble(cfg)
    past = None
    if cfg.runtime.resume and directory.may_be_under_way:
        past = resume_state(directory.path, directory.run_id, replays=isinstance(parts.method, ZerothOrder))
    flops = FlopMeter(parts.base.model)
    ledger = Ledger(Budget(**granted(cfg)), lambda: flops.total)
    outcome, step_memory = TrainingOutcome(), StepMemory()
    config_yaml, meta = OmegaConf.to_yaml(cfg, resolve=True), {**environment(), **parts.facts, "identity": known}
    result: dict[str, Any] = {**_head(cfg, known, directory), "status": "failed", "error": None, "metrics": {}}
    result["tested"] = cfg.runtime.test
    result |= {"metric": parts.evaluator.scoring.metrics[0], "provenance": parts.provenance}
    with ExitStack() as beginning:
        # A signal that comes once there is a folder waits until it becomes a result.
        beginning.enter_context(uninterrupted())
        if past is None:
            directory.start(config_yaml, meta)
        observer = _observer(cfg, parts, directory, ledger, past)
        if past is not None:
            _note_resume(directory, config_yaml, meta, past)
        try:
            with _record_failure(result, directory), shortage_told(cfg, lambda: ledger.phase):
                beginning.close()
                if past is None:
                    observer.facts = _calibrate(cfg, parts, ledger, observer)
                result |= observer.facts
                _trainer(cfg, parts, ledger, observer, step_memory, outcome, result["calibration"]).run(past)
                holdout.keep(parts, directory, outcome, tested=cfg.runtime.test)
                test = holdout.read_at_end(parts, directory, ledger, outcome) if cfg.runtime.test else {}
                result |= {"status": outcome.status, "error": outcome.error, "metrics": _metrics(outcome, test)}
        finally:
            total = time.perf_counter() - started + (past.seconds if past else 0.0)
            result |= _tail(ledger, outcome, total) | memory.facts(*parts.base.devices)
            result |= {"memory_bytes": step_memory.facts(parts.model)}
            try:
                with uninterrupted():
                    directory.finish(result)
            finally:  # which may wait for a network
                observer.close({"status": result["status"], **_flat(result["metrics"])})
    directory.remove(checkpoint.NAME)  # nothing is left to go on from
    return result


@contextmanager
def _record_failure(result: dict[str, Any], directory: RunDirectory) -> Iterator[None]:
    """Say in the result, and in error.txt, what ended the block before its time."""
    try:
        yield
    except KeyboardInterrupt:
        result["status"] = "interrupted"
        raise
    except Exception as error:  # whatever ended the run, its status and the traceback must be on disk
        said = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
        result["error"] = redacted(said)
        with suppress(Fault):  # the disk may be what failed
            write_atomic(directory.path / "error.txt", redacted(traceback.format_exc()))
        raise


def _note_resume(directory: RunDirectory, config_yaml: str, meta: dict[str, Any], past: ResumeState) -> None:
    """Note in meta.json that the run goes on here and now, and say what is different. Both files may have been lost."""
    begun = read_meta(directory.path) or meta
    if differs := ", ".join(differences(begun, meta)):
        warnings.warn(f"The run began with {differs}: what follows may round differently.", RunWarning, stacklevel=2)
    at = past.last.row["step"] + 1 if past.last else 0
    now = {key: value for key, value in meta.items() if key != "identity"}
    directory.describe(config_yaml, {**begun, "resumed": [*begun.get("resumed", []), {"step": at, **now}]})


def _observer(
    cfg: DictConfig, parts: Parts, directory: RunDirectory, ledger: Ledger, past: ResumeState | None
) -> Recorder:
    title = label(cfg)
    return Recorder(
        directory,
        tracker_of(cfg, directory.path, title),
        lambda folder: lora.save(parts.model, folder),
        title=title,
        ledger=ledger,
        seed=cfg.seeds.direction,
        past=past,
    )


def _noise(cfg: DictConfig) -> Noise:
    return Noise(std=cfg.noise.std, repeats=cfg.noise.repeats, every=cfg.noise.every, seed=cfg.seeds.direction)


def _calibrate(cfg: DictConfig, parts: Parts, ledger: Ledger, observer: Recorder) -> dict[str, Any]:
    """Measure what is `auto`, give it to the method, and return what result.json says of it."""
    if not calibrates(cfg) or parts.calibration_method is None:
        return {"calibration": None}
    bench = CalibrationQueries(
        method=parts.calibration_method,
        evaluator=parts.evaluator,
        examples=parts.train,
        order=parts.probed,
        ledger=ledger,
        noise=_noise(cfg),
        probes=cfg.calibration.probes,
        reserve=parts.step_queries,
        reserve_tokens=parts.step_tokens,
    )
    found = calibrate(
        bench.measure,
        lr=None if cfg.method.lr == AUTO else cfg.method.lr,
        lr_scale=cfg.method.lr_scale,
        lr_default=cfg.method.fallback.lr,
        eps=None if cfg.method.eps == AUTO else cfg.method.eps,
        eps_default=cfg.method.fallback.eps,
        target_db=cfg.calibration.fd_snr_db,
        normalized=parts.calibration_method.normalizes != "nothing",
        longest=longest_update(parts.calibration_method, cfg.calibration.walk, _steps(parts, ledger.budget)),
    )
    if not ledger.affords(parts.step_queries, tokens=parts.step_tokens):  # only seconds can end here
        raise invalid("budget.seconds", cfg.budget.seconds, f"> {ledger.spent:.3g}, which calibration took")
    for note in found.notes:
        warnings.warn(note, RunWarning, stacklevel=2)
    for group in parts.method.param_groups:
        group["lr"], group["eps"] = found.lr, found.eps
    event = {"step": 0, "queries": ledger.charged, "lr": found.lr, "calibration/eps": found.eps}
    observer.on_log({**event, "calibration/curvature": found.curvature})
    return {"lr": found.lr, "eps": found.eps, "calibration": found.as_dict()}


def _steps(parts: Parts, budget: Budget) -> float | None:
    """Steps that a whole budget pays, by the tokens of the first batch; None of seconds, which nobody knows before."""
    each = {"queries": 1.0, "tokens": parts.step_tokens / parts.step_queries}
    return budget.limit / (each[budget.unit] * parts.method.queries_per_step) if budget.unit in each else None


def _trainer(
    cfg: DictConfig,
    parts: Parts,
    ledger: Ledger,
    observer: Recorder,
    memory: StepMemory,
    outcome: TrainingOutcome,
    calibration: dict[str, Any] | None,
) -> Trainer:
    return Trainer(
        outcome=outcome,
        rate=_rate(cfg, parts.method, calibration),
        method=parts.method,
        evaluator=parts.evaluator,
        train=parts.train,
        dev=parts.dev,
        order=parts.order,
        ledger=ledger,
        noise=_noise(cfg),
        eval_every=cfg.budget.eval_every,
        log_every=cfg.budget.log_every,
        checkpoint_every=cfg.runtime.checkpoint_every,
        observer=observer,
        memory=memory,
        guard=Guard(**cfg.guard),
    )


def _rate(cfg: DictConfig, method: Method, calibration: dict[str, Any] | None) -> CurvatureSchedule | None:
    """What chooses the rate of every step.

    None where it is given, where noise hides the curvature at eps, and for methods that it is not made for.
    """
    every = cfg.calibration.every
    if calibration is None or cfg.method.lr != AUTO or not every:
        return None
    if not (isinstance(method, ZerothOrder) and method.follows_curvature):
        return None
    if calibration["curvature_eps"] != calibration["eps"]:
        return None
    eps, curvatures = calibration["eps"], calibration["curvatures"]
    scale, most = cfg.method.lr_scale, calibration["lr_max"]
    return CurvatureSchedule(lr_scale=scale, eps=eps, every=every, curvatures=curvatures, lr_max=most)


def label(cfg: DictConfig) -> str:
    """How a run is called in a line: method, rank where it has one, seed."""
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
