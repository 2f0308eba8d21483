"""What the way of evaluation does to the rounding of a slope, against the same slope in float64."""

import copy
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.settings import SCORING, Setting
from zo_runner.methods import AR1ZO
from zo_runner.methods.queries import losses_at
from zo_runner.methods.random import normal
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.lora import lora_groups
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.training.objective import Objective

# Arguments of `PerturbedModel`; None: every perturbation is written to the parameters.
PATHS: dict[str, tuple[str, bool] | None] = {
    "written": None,
    "batched": ("batched", False),
    "folded": ("sequential", True),
    "batched and folded": ("batched", True),
}
EPS, BATCH = 1e-3, 8


@dataclass(frozen=True)
class Rounding:
    """Slopes of AR1-ZO beside those of float64, by root mean square.

    Attributes:
        model: its name.
        rank: of the adapter.
        path: of PATHS.
        slope: in loss units per unit of the direction.
        error: likewise.
    """

    model: str
    rank: int
    path: str
    slope: float
    error: float

    @property
    def fd_snr_db(self) -> float:
        """Slope over error, in dB."""
        return 20 * math.log10(self.slope / self.error) if self.error else math.inf


@torch.no_grad()
def roundings(setting: Setting, *, ranks: tuple[int, ...], directions: int) -> Iterator[Rounding]:
    """Slopes along some directions, one atom after the other, on an adapter that is no longer fresh."""
    examples = setting.mixed[:BATCH]
    for rank in ranks:
        model, groups = setting.adapted(rank, "topology")
        for group in groups:
            b_OR = group["params"][1]
            b_OR.copy_(0.02 / math.sqrt(rank) * normal(b_OR.shape, 0, "B", group["name"]))
        precise = copy.deepcopy(model).double()
        exact = _slopes(setting, precise, lora_groups(precise), None, examples, directions)
        for name, path in PATHS.items():
            found = _slopes(setting, model, groups, path, examples, directions)
            errors = [one - other for one, other in zip(found, exact, strict=True)]
            yield Rounding(setting.name, rank, name, _rms(exact), _rms(errors))


def _slopes(
    setting: Setting,
    model: Any,
    groups: list[dict[str, Any]],
    path: tuple[str, bool] | None,
    examples: Any,
    directions: int,
) -> list[float]:
    base = setting.base
    perturbed = None if path is None else PerturbedModel(model, *path)
    evaluator = Evaluator(model, SCORING, pad_id=base.pad_id, context=base.context, perturbed=perturbed)
    query, method = Objective(evaluator, evaluator.batches(examples)), AR1ZO(groups, lr=0.0, eps=EPS)
    pairs = (losses_at(query, [method.direction(step)], (EPS, -EPS))[0] for step in range(directions))
    return [(plus - minus) / (2 * EPS) for plus, minus in pairs]


def _rms(values: list[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))
