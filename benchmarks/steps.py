"""(c) and (d) Our steps, as the trainer takes them; and probes, which read slopes along many directions.

What is timed is what a run reports as the seconds of a step: building the batch, queries, update, and the ledger's
counting.
"""

import itertools
import statistics
import time
from typing import Any

import torch
from peft import PeftModel

from benchmarks.rounds import TimedSteps, Variant
from benchmarks.settings import SCORING, Setting, Work
from zo_runner.methods import AR1ZO, MeZO
from zo_runner.methods.queries import losses_at
from zo_runner.methods.zeroth_order import ZerothOrder
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.flops import FlopMeter
from zo_runner.models.lora import dense_groups
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.memory import StepMemory
from zo_runner.training.noise import Noise
from zo_runner.training.objective import Objective
from zo_runner.training.step import Stepper

# So small that a loss at theta +- eps u is that at theta to rounding, and no step leaves the initialisation: then all
# variants see the same loss. What a step costs does not depend on them, as long as they are not 0.
EPS, LR = 1e-4, 1e-8

# How the points of a step are evaluated, and which of them a run takes by itself.
EVALUATIONS = ("sequential", "batched", "auto")
DEFAULT = "auto"

UNLIMITED = 2**62

METHODS = ("ar1zo", "lora_zo", "mezo")


class Ours:
    """Steps of one of METHODS, of a run that is under way; a variant.

    Args:
        work: what they see.
        rank: of the adapter; without effect on mezo, which has none.
        method: its name.
        evaluation: of EVALUATIONS.
    """

    def __init__(self, work: Work, *, rank: int, method: str = "ar1zo", evaluation: str = DEFAULT) -> None:
        self.model, self.method = trained(work.setting, method, rank)
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        counter = FlopMeter(base)  # the runner counts operations too
        self.stepper = Stepper(
            method=self.method,
            evaluator=evaluator_of(work.setting, self.model, evaluation),
            train=work.examples,
            order=work.order,
            ledger=Ledger(Budget(queries=UNLIMITED), lambda: counter.total),
            noise=Noise(repeats=0),
        )

    def __call__(self, steps: range, memory: StepMemory | None = None) -> TimedSteps:
        """Take some steps, which follow those that were taken before."""
        self.stepper.memory, records = memory, []
        for _ in steps:
            pending = self.stepper.next_step()
            assert pending is not None
            records.append(self.stepper.step(pending))
        return TimedSteps(statistics.fmean(step.seconds for step in records), [step.report.loss for step in records])


def probe(work: Work, evaluation: str, *, rank: int, directions: int) -> Variant:
    """Slopes along K directions at one point: two queries along each. Its loss is the mean over all of them."""
    model, method = trained(work.setting, "ar1zo", rank)
    evaluator = evaluator_of(work.setting, model, evaluation)

    @torch.no_grad()
    def take(steps: range) -> TimedSteps:
        batches, losses = work.batches(steps), []
        start = time.perf_counter()
        for step, batch in zip(steps, batches, strict=True):
            query = Objective(evaluator, evaluator.batches(batch))
            along = [method.direction(step * directions + k) for k in range(directions)]
            losses.append(statistics.fmean(itertools.chain(*losses_at(query, along, (EPS, -EPS)))))
        return TimedSteps((time.perf_counter() - start) / len(steps), losses)

    return take


# How a probe of K directions is evaluated.
PROBES = {"one by one": "sequential", "together": "batched"}


def trained(setting: Setting, method: str, rank: int) -> tuple[Any, ZerothOrder]:
    """A model and the method that trains it."""
    if method == "mezo":
        model: Any = setting.bare()
        _own_weights(model)
        return model, MeZO(dense_groups(model), lr=LR, eps=EPS)
    atoms, scaling = ("one", "topology") if method == "ar1zo" else ("all", "canonical")
    model, groups = setting.adapted(rank, scaling)
    return model, AR1ZO(groups, lr=LR, eps=EPS, atoms=atoms)


def evaluator_of(setting: Setting, model: Any, evaluation: str) -> Evaluator:
    """What turns the setting's examples into losses."""
    base = setting.base
    perturbed = PerturbedModel(model, evaluation, None)
    return Evaluator(model, SCORING, pad_id=base.pad_id, context=base.context, perturbed=perturbed)


def _own_weights(model: torch.nn.Module) -> None:
    """DirectionPart the weights from the setting's, for a method that changes them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
