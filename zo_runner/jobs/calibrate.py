"""`method.lr=auto` and `method.eps=auto` of a run: from its configuration to a rate, a radius and a schedule."""

import warnings
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from zo_runner.config.derived import calibrates
from zo_runner.config.schema import AUTO
from zo_runner.errors import RunWarning, invalid
from zo_runner.jobs.assemble import Parts
from zo_runner.methods.base import Method
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.calibration import calibrate, longest_update
from zo_runner.training.calibration_queries import CalibrationQueries, ProbeCache
from zo_runner.training.learning_rate import CurvatureSchedule
from zo_runner.training.noise import Noise


def noise_of(cfg: DictConfig) -> Noise:
    """The evaluation noise that is added and measured."""
    return Noise(std=cfg.noise.std, repeats=cfg.noise.repeats, every=cfg.noise.every, seed=cfg.seeds.direction)


def calibrated(cfg: DictConfig, parts: Parts, ledger: Ledger, log: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Choose the rate and the radius that are `auto`, set them, and return their fields of the result.

    Args:
        cfg: a checked configuration.
        parts: of the run.
        ledger: where the queries are booked.
        log: records an event of metrics.jsonl.

    Raises:
        UserError: calibration took the whole budget of seconds.
    """
    if not calibrates(cfg) or parts.calibration_method is None:
        return {"calibration": None}
    queries = CalibrationQueries(
        method=parts.calibration_method,
        evaluator=parts.evaluator,
        examples=parts.train,
        order=parts.probed,
        ledger=ledger,
        noise=noise_of(cfg),
        probes=cfg.calibration.probes,
        reserve=parts.step_queries,
        reserve_tokens=parts.step_tokens,
    )
    chosen = calibrate(
        ProbeCache(queries.measure),
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
    for note in chosen.notes:
        warnings.warn(note, RunWarning, stacklevel=2)
    for group in parts.method.param_groups:
        group["lr"], group["eps"] = chosen.lr, chosen.eps
    event = {"step": 0, "queries": ledger.charged, "lr": chosen.lr, "calibration/eps": chosen.eps}
    log({**event, "calibration/curvature": chosen.curvature})
    return {"lr": chosen.lr, "eps": chosen.eps, "calibration": chosen.as_dict()}


def _steps(parts: Parts, budget: Budget) -> float | None:
    """Steps that a whole budget pays, by the tokens of the first batch; None for seconds, of which nobody can tell."""
    each = {"queries": 1.0, "tokens": parts.step_tokens / parts.step_queries}
    return budget.limit / (each[budget.unit] * parts.method.queries_per_step) if budget.unit in each else None


def schedule_of(cfg: DictConfig, method: Method, calibration: dict[str, Any] | None) -> CurvatureSchedule | None:
    """Schedule of the learning rate; None for a constant one.

    The rate is constant where it is given, where noise hides the curvature at eps, and for methods that do not follow
    the curvature.
    """
    every = cfg.calibration.every
    if calibration is None or cfg.method.lr != AUTO or not every or not method.follows_curvature:
        return None
    if calibration["curvature_eps"] != calibration["eps"]:
        return None
    eps, curvatures = calibration["eps"], calibration["curvatures"]
    scale, lr_max = cfg.method.lr_scale, calibration["lr_max"]
    return CurvatureSchedule(lr_scale=scale, eps=eps, every=every, curvatures=curvatures, lr_max=lr_max)
