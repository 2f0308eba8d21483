"""The measurements of `job=probe`: slopes along random directions at one point, beside their exact values.

Directions, noise and draws of A are the same numbers in every cell of the grid, so that cells differ by rank and
scaling only.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from peft import PeftModel
from tqdm import tqdm

from zo_runner.errors import invalid, is_shortage
from zo_runner.jobs.assemble import TaskSetup, method_of
from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.atoms import lora_alpha
from zo_runner.methods.directions import Direction
from zo_runner.methods.queries import losses_at
from zo_runner.models import lora
from zo_runner.models.encoding import Encoded
from zo_runner.reporting.probe_statistics import Cell
from zo_runner.seeds import fold_in
from zo_runner.snr import loss_noise_variance
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.noise import Noise
from zo_runner.training.objective import Objective, objective, re_evaluations
from zo_runner.training.sampler import BatchOrder

Groups = list[dict[str, Any]]

# Directions that exist at once: those of all atoms are as large as the adapter.
DIRECTIONS_AT_ONCE = 16


@dataclass(frozen=True)
class ProbedAdapter:
    """An adapter at which directions are drawn.

    Attributes:
        model: base with adapter.
        rank: of the adapter.
        scaling: its name.
        init: which draw of A.
        groups: the adapter's parameters.
    """

    model: PeftModel
    rank: int
    scaling: str
    init: int
    groups: Groups


class Study:
    """All cells of one model and batch.

    Args:
        cfg: a checked configuration.
        on: model and task.
        train: training examples.
    """

    def __init__(self, cfg: DictConfig, on: TaskSetup, train: list[Encoded]) -> None:
        self.cfg, self.on, self.train = cfg, on, train
        self.batch = [train[i] for i in BatchOrder(len(train), cfg.batch_size, fold_in(cfg.seeds.order, "probe"))[0]]
        self.noise = Noise(std=cfg.noise.std, repeats=cfg.noise.repeats, seed=cfg.seeds.direction)
        self.per_init = math.ceil(cfg.probe.directions / cfg.probe.inits)
        adapters_probed = 1 if cfg.probe.adapter is not None else len(cfg.probe.ranks) * len(cfg.probe.scalings)
        queries = 2 * self.per_init * cfg.probe.inits * len(cfg.probe.atoms) * adapters_probed
        self.ledger = Ledger(Budget(queries=queries))

    def cells(self) -> list[Cell]:
        """Every cell, in the order of the grid."""
        found: dict[tuple[str, str, int], list[ProbedSlopes]] = {}
        bar = tqdm(desc="probe", unit="direction", disable=None, leave=False)
        with bar:
            for point in self.points():
                noise = self._noise(point)
                exact = self._gradient(point)
                for atoms in self.cfg.probe.atoms:
                    drawn = self._draw(point, atoms, exact, noise)
                    found.setdefault((atoms, point.scaling, point.rank), []).append(drawn)
                    bar.update(self.per_init)
        return [_cell(key, drawn, self.cfg.method.eps) for key, drawn in sorted(found.items())]

    def points(self) -> Iterator[ProbedAdapter]:
        """Adapters, one after the other on the same base model."""
        cfg = self.cfg
        if cfg.probe.adapter is not None:
            model = lora.load(self.on.base.model, Path(cfg.probe.adapter), "probe.adapter")
            groups = lora.lora_groups(model)
            rank, scaling = groups[0]["params"][0].shape[0], _scaling_of(model, cfg.alpha)
            for init in range(cfg.probe.inits):
                yield ProbedAdapter(model, rank, scaling, init, groups)
            return
        for rank, scaling, init in itertools.product(cfg.probe.ranks, cfg.probe.scalings, range(cfg.probe.inits)):
            model = lora.attach_lora(
                self.on.base.model,
                rank=rank,
                alpha=cfg.alpha,
                scaling=scaling,
                target_modules=cfg.adapter.target_modules,
                seed=fold_in(cfg.seeds.adapter, "probe", init),
            )
            point = ProbedAdapter(model, rank, scaling, init, lora.lora_groups(model))
            self._train(point)
            yield point
            model.unload()

    def _train(self, point: ProbedAdapter) -> None:
        """Take the steps that lead from the initialisation to the operating point."""
        method = method_of(self.cfg, point.groups, self.cfg.seeds.direction)
        order = BatchOrder(len(self.train), self.cfg.batch_size, self.cfg.seeds.order)
        evaluator = self.on.evaluator(point.model, self.cfg.runtime)
        for step in range(self.cfg.probe.steps):
            batches = evaluator.batches([self.train[i] for i in order[step]])
            method.step(Objective(evaluator, batches))

    @torch.no_grad()
    def _draw(self, point: ProbedAdapter, atoms: str, exact: Groups | None, sigma2: float) -> "ProbedSlopes":
        """Slopes along the cell's directions at one point."""
        evaluator = self.on.evaluator(point.model, self.cfg.runtime)
        batches = evaluator.batches(self.batch)
        # The path leaves rank and scaling out: the same added noise in every cell.
        closure = objective(evaluator, batches, self.ledger, self.noise, "probe", point.init)
        seed, eps = fold_in(self.cfg.seeds.direction, "probe", point.init), self.cfg.method.eps

        def directions(groups: Groups) -> AR1ZO:
            return AR1ZO(groups, lr=0.0, eps=eps, seed=seed, atoms=atoms, order="shuffled")

        moved = directions(point.groups)
        average = [{**g, "params": [torch.zeros_like(p) for p in g["params"]]} for g in point.groups]
        slopes, derivatives = [], []
        for start in range(0, self.per_init, DIRECTIONS_AT_ONCE):
            some = range(start, min(start + DIRECTIONS_AT_ONCE, self.per_init))
            losses = losses_at(closure, [moved.direction(i) for i in some], (eps, -eps))
            slopes += [(plus - minus) / (2 * eps) for plus, minus in losses]
        if exact is not None:
            for i, slope in enumerate(slopes):
                derivatives.append(_dot(directions(exact).direction(i)))
                for part in directions(average).direction(i):
                    part.view.add_(part.component, alpha=slope)
        cosine = _cosine(average, exact) if exact is not None else None
        return ProbedSlopes(point.init, tuple(slopes), tuple(derivatives), cosine, sigma2)

    def _noise(self, point: ProbedAdapter) -> float:
        """Variance of the loss noise at a point."""
        if not self.noise.repeats:
            return float(self.noise.std**2)
        evaluator, path = self.on.evaluator(point.model), ("probe", "noise", point.rank, point.init)
        return loss_noise_variance(re_evaluations(evaluator, self.ledger, self.noise, self.batch, point.init, *path))

    def _gradient(self, point: ProbedAdapter) -> Groups | None:
        """The gradient of the batch's loss in the adapter's parameters, by autograd in float32; None if not wanted."""
        if not self.cfg.probe.gradient:
            return None
        model: Any = point.model
        if self.cfg.runtime.dtype != "float32":
            model = copy.deepcopy(model).float()
        groups = lora.lora_groups(model)
        parameters = [p for group in groups for p in group["params"]]
        evaluator = self.on.evaluator(model)
        for p in parameters:
            p.requires_grad_(True)
        try:
            gradients = iter(torch.autograd.grad(evaluator.loss(*evaluator.batches(self.batch)), parameters))
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise invalid("probe.gradient", True, "false: autograd does not fit into memory here") from None
        finally:
            for p in parameters:
                p.requires_grad_(False)
        return [{**group, "params": [next(gradients) for _ in group["params"]]} for group in groups]


@dataclass(frozen=True)
class ProbedSlopes:
    """Slopes along the directions of one initialisation."""

    init: int
    slopes: tuple[float, ...]
    exact: tuple[float, ...]
    cosine: float | None
    sigma2: float


def _cell(key: tuple[str, str, int], drawn: list[ProbedSlopes], eps: float) -> Cell:
    atoms, scaling, rank = key
    known = all(part.cosine is not None for part in drawn)
    return Cell(
        atoms=atoms,
        scaling=scaling,
        rank=rank,
        eps=eps,
        slopes=tuple(slope for part in drawn for slope in part.slopes),
        init=tuple(part.init for part in drawn for _ in part.slopes),
        exact=tuple(value for part in drawn for value in part.exact) if known else None,
        cosine=tuple(float(part.cosine) for part in drawn if part.cosine is not None) if known else None,
        sigma2=sum(part.sigma2 for part in drawn) / len(drawn),
    )


def _dot(direction: Direction) -> float:
    """<grad, u>, where the direction's views are those of the gradient."""
    return sum(float((part.view.double() * part.component.double()).sum()) for part in direction)


def _cosine(left: Groups, right: Groups) -> float:
    a, b = (torch.cat([p.flatten().double() for group in side for p in group["params"]]) for side in (left, right))
    return float(a @ b / (a.norm() * b.norm())) if a.norm() > 0 and b.norm() > 0 else 0.0


def _scaling_of(model: PeftModel, alpha: float) -> str:
    """The scaling that a saved adapter was made with.

    Raises:
        UserError: none of ours at this alpha.
    """
    saved: Any = model.peft_config["default"]
    if saved.use_rslora:
        return "rslora"
    for scaling in ("topology", "canonical"):
        if math.isclose(saved.lora_alpha, lora_alpha(scaling, alpha, saved.r)):
            return scaling
    raise invalid("alpha", alpha, f"the adapter's: its lora_alpha is {saved.lora_alpha:g} at rank {saved.r}")
