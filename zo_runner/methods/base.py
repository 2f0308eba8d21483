"""What methods share: the step, its report, its counters.

A method is a `torch.optim.Optimizer` whose `step(closure)` spends `queries_per_step` queries. The closure returns the
loss of the current batch at the current parameters as a 0-d tensor. A zeroth-order method calls it without gradients,
once per query. A first-order method (`first_order`) calls it once and differentiates what it returns.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from zo_runner.directions import Closure, Direction, losses_along, move

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]]


@dataclass(frozen=True)
class StepReport:
    """What one step did: enough, with the run's seed, to take it again without a query.

    Attributes:
        step: 0-based index of the step.
        loss: best estimate of the loss at the parameters before the step, from the step's own queries.
        slopes: directional derivatives measured, in loss units per unit of the direction; none of a first-order method.
        lr: learning rate of the first parameter group.
        atom: index of the queried atom, None for methods that query all at once.
    """

    step: int
    loss: float
    slopes: tuple[float, ...]
    lr: float
    atom: int | None = None


class Method(torch.optim.Optimizer):
    """What the training loop asks of a method.

    Args:
        params: tensors or parameter groups. A group may name its tensors (`names`) or itself (`name`), and hold the
            frozen weight that it adapts (`weight`).
        lr: learning rate; finite, >= 0.
        settings: what else the groups keep, so that `state_dict` carries it.

    Attributes:
        queries_per_step: what a step is charged.
        needs_grad: whether the closure's loss must come with its graph.
        report: of the latest step, None before the first.
        weights: the frozen weight of each group, None where it has none.

    Raises:
        ValueError: an argument out of range.
    """

    queries_per_step: ClassVar[int]
    needs_grad: ClassVar[bool] = False

    def __init__(self, params: Params, *, lr: float, **settings: Any) -> None:
        require("lr", lr, at_least=0.0)
        # Copies: torch writes the defaults into the groups, and a second method on them would take the first one's.
        groups: list[Any] = [dict(entry) if isinstance(entry, dict) else entry for entry in params]
        # Frozen weights are no state of the method, and whatever stays in a group is saved as such.
        weights = [group.pop("weight", None) if isinstance(group, dict) else None for group in groups]
        super().__init__(groups, {"lr": float(lr), **settings, "steps": 0})
        for group in self.param_groups:
            require("lr", group["lr"], at_least=0.0)
        self.weights: list[torch.Tensor | None] = weights
        self.report: StepReport | None = None

    @property
    def steps(self) -> int:
        """Number of steps taken. Kept in the parameter groups, so that `state_dict` carries it."""
        return int(self.param_groups[0]["steps"])

    @property
    def num_atoms(self) -> int | None:
        """Number of atoms that `atom` chooses from, or None."""
        return None

    def step(self, closure: Closure | Callable[[], float]) -> float:  # type: ignore[override]  # a closure is required
        """Take one step and return its estimate of the loss. Where the loss is not finite, it raises `Diverged`."""
        raise NotImplementedError

    def _finish(self, report: StepReport) -> None:
        self.report = report
        for group in self.param_groups:
            group["steps"] = report.step + 1


class ZerothOrder(Method):
    """Two-sided zeroth-order method along one random direction per step.

        theta <- theta - lr * slope * u,   slope = (l(theta + eps u) - l(theta - eps u)) / (2 eps)

    A subclass says what u is, in `direction(step)`, which must be a function of (seed, step) alone.

    Args:
        params: as in `Method`; the random numbers are keyed by the names in the groups, else by position.
        lr: learning rate, in parameter units per unit slope; finite, >= 0.
        eps: perturbation radius, in parameter units; finite, > 0.
        seed: of the direction stream.

    Raises:
        ValueError: an argument out of range.
    """

    queries_per_step: ClassVar[int] = 2

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0) -> None:
        require("eps", eps, above=0.0)
        super().__init__(params, lr=lr, eps=float(eps), seed=int(seed))
        for group in self.param_groups:
            if group["eps"] != float(eps):
                raise ValueError(f"Invalid eps: {group['eps']!r} in one group. Must be the same in all groups.")

    @property
    def eps(self) -> float:
        """Perturbation radius."""
        return float(self.param_groups[0]["eps"])

    @property
    def seed(self) -> int:
        """Seed of the direction stream."""
        return int(self.param_groups[0]["seed"])

    def direction(self, step: int) -> Direction:
        """The direction u of `step`; the same numbers whenever it is asked for."""
        raise NotImplementedError

    def atom(self, step: int) -> int | None:
        """The atom that `step` queries in the first module, or None."""
        return None

    @torch.no_grad()
    def step(self, closure: Closure | Callable[[], float]) -> float:  # type: ignore[override]  # a closure is required
        """Take one step and return the loss estimate (l+ + l-) / 2.

        Raises:
            Diverged: a queried loss is not finite; the parameters are as before the step.
        """
        step, eps = self.steps, self.eps
        u = self.direction(step)
        loss_plus, loss_minus = losses_along(closure, u, (eps, -eps))  # type: ignore[arg-type]  # floats serve as well
        slope = (loss_plus - loss_minus) / (2 * eps)
        move(u, slope)
        self._finish(
            StepReport(step, (loss_plus + loss_minus) / 2, (slope,), self.param_groups[0]["lr"], self.atom(step))
        )
        return self.report.loss if self.report else math.nan


def require(
    name: str, value: float, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Check the range of a constructor's argument.

    Raises:
        ValueError: it is no finite number, or out of range.
    """
    bounds = ((">=", at_least), (">", above), ("<", below))
    text = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    low = (at_least is None or value >= at_least) and (above is None or value > above) if number else False
    if not (low and (below is None or value < below)):
        raise ValueError(f"Invalid {name}: {value!r}. Must be a finite number {text}.")
