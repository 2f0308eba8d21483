"""(c) and (d) Our steps, taken by the trainer itself; and probes, which read slopes along many directions.

What is timed is what a run reports as the seconds of a step: building the batch, queries, update, and the ledger's
counting.
"""

import statistics
import time
from typing import Any

import torch
from peft import PeftModel

from benchmarks.rounds import Taken, Variant
from benchmarks.settings import SCORING, Setting, Work
from zo_runner.adapters import dense_groups
from zo_runner.budget import Budget, Ledger
from zo_runner.directions import losses_at
from zo_runner.evaluation import Evaluator
from zo_runner.flops import FlopMeter
from zo_runner.memory import StepMemory
from zo_runner.methods import AR1ZO, MeZO
from zo_runner.methods.base import Method, ZerothOrder
from zo_runner.noise import Noise
from zo_runner.outcome import Taken as Step
from zo_runner.query import Perturbed
from zo_runner.train import Trainer

# So small that a loss at theta +- eps u is that at theta to rounding, and no step leaves the initialisation: then all
# variants see the same loss. What a step costs does not depend on them, as long as they are not 0.
EPS, LR = 1e-4, 1e-8

# How the points of a step are evaluated, and which of them a run takes by itself.
EVALUATIONS = ("sequential", "batched", "auto")
DEFAULT = "auto"

NEVER = 2**62

METHODS = ("ar1zo", "lora_zo", "mezo")


class _Listener:
    """Keeps the losses of a run's steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, taken: Step, readings: dict[str, float]) -> None:
        self.losses.append(taken.report.loss)

    def logged(self, event: dict[str, Any]) -> None:
        pass

    def improved(self) -> None:
        pass

    def reached(self, method: Method, state: dict[str, Any]) -> None:
        pass


class Ours:
    """Steps of one of METHODS; a variant.

    Args:
        work: what they see.
        rank: of the adapter; without effect on mezo, which has none.
        method: its name.
        evaluation: of EVALUATIONS.
    """

    def __init__(self, work: Work, *, rank: int, method: str = "ar1zo", evaluation: str = DEFAULT) -> None:
        self.work = work
        self.model, self.method = trained(work.setting, method, rank)
        self.evaluator = evaluator_of(work.setting, self.model, evaluation)

    def __call__(self, steps: range, memory: StepMemory | None = None) -> Taken:
        """Take some steps, which follow those that were taken before."""
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        counter, listener = FlopMeter(base), _Listener()  # the runner counts operations too
        trainer = Trainer(
            method=self.method,
            evaluator=self.evaluator,
            train=self.work.examples,
            dev=self.work.examples[:1],  # the trainer scores dev at both ends, outside its steps
            order=self.work.order,
            ledger=Ledger(Budget(queries=len(steps) * self.method.queries_per_step), lambda: counter.total),
            noise=Noise(repeats=0),
            eval_every=NEVER,
            log_every=NEVER,
            observer=listener,
            memory=memory,
        )
        outcome = trainer.run()
        counter.close()
        if outcome.status != "done":
            raise RuntimeError(f"The steps ended early: {outcome.error}.")
        return Taken(statistics.fmean(outcome.step_seconds), listener.losses)


def probe(work: Work, evaluation: str, *, rank: int, directions: int) -> Variant:
    """Slopes along K directions at one point: two queries along each."""
    model, method = trained(work.setting, "ar1zo", rank)
    evaluator = evaluator_of(work.setting, model, evaluation)

    @torch.no_grad()
    def take(steps: range) -> Taken:
        batches, losses = work.batches(steps), []
        start = time.perf_counter()
        for step, batch in zip(steps, batches, strict=True):
            query = evaluator.query(*evaluator.batches(batch))
            along = [method.direction(step * directions + k) for k in range(directions)]
            losses += [loss for pair in losses_at(query, along, (EPS, -EPS)) for loss in pair]
        return Taken((time.perf_counter() - start) / len(steps), losses)

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
    perturbed = Perturbed(model, evaluation, None)
    return Evaluator(model, SCORING, pad_id=base.pad_id, context=base.context, perturbed=perturbed)


def _own_weights(model: torch.nn.Module) -> None:
    """Part the weights from the setting's, for a method that changes them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
