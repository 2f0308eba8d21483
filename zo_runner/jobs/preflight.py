"""Checks of a run that need its parts, made before anything is written."""

from collections.abc import Callable

from omegaconf import DictConfig

from zo_runner.config.derived import calibrates, granted
from zo_runner.errors import invalid
from zo_runner.methods.base import Method
from zo_runner.models.atom_folding import Fold
from zo_runner.models.evaluator import Evaluator


def require_paths(cfg: DictConfig, evaluator: Evaluator, method: Method) -> None:
    """Refuse a way of evaluation that was asked for and that the method's directions or the model do not allow."""
    perturbed, name = evaluator.perturbed, cfg.method.name
    if perturbed is None:
        return
    if cfg.runtime.evaluation == "batched":
        directions = [method.direction(0)] if method.has_directions else []
        if evaluator.scoring.loss == "f1" or not directions or not perturbed.reads(directions, 2, 1):
            allowed = f"auto or sequential: perturbations of {name} cannot be added to a forward of {cfg.model.name}"
            raise invalid("runtime.evaluation", "batched", allowed)
    if cfg.runtime.fold and (method.num_atoms is None or not Fold.possible(evaluator.model)):
        raise invalid("runtime.fold", True, "null or false but for one-atom methods on linear layers in float32")


def require_budget(cfg: DictConfig, unit: str, method: Method, step: int, probe: Callable[[int], int]) -> None:
    """Refuse a budget that cannot pay the first step, and the calibration before it.

    Args:
        cfg: a checked configuration.
        unit: of the budget.
        method: the optimiser.
        step: cost of the first step.
        probe: cost of one query of the direction of that number.
    """
    needed, calibration = step, ""
    if calibrates(cfg):
        needed += method.queries_per_probe * sum(map(probe, range(cfg.calibration.probes)))
        calibration = f" and its calibration with calibration.probes={cfg.calibration.probes}"
    given = granted(cfg)[unit]
    if given < needed:
        raise invalid(f"budget.{unit}", given, f">= {needed}, the cost of one step of {cfg.method.name}{calibration}")
