"""The base class of zeroth-order methods: a direction, queries along it, and an update.

    theta <- theta - lr * slope * u,   slope = (l(theta + eps u) - l(theta - eps u)) / (2 eps)

A subclass draws u in `direction(step)`: a function of the seed, the step and the method's state. It may replace the
queries (`_query`) and the update (`_update`). The update goes along the direction that was perturbed, and follows from
the report and the method's state alone, so that a step can be replayed from its report. State beyond the counters lies
in `self.state`, by parameter, so that `state_dict` carries it; it changes in `_update` alone, after all queries.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch

from zo_runner.methods.base import Key, Method, Params, StepReport, require, working_dtype
from zo_runner.methods.directions import Direction, LazyDirection, LowRankPart, Slot, move
from zo_runner.methods.queries import Closure, losses_along
from zo_runner.methods.random import normal, signs

# (left, right) of u = left @ right'; without left, u is right.
Factors = tuple[torch.Tensor | None, torch.Tensor]


class ZerothOrder(Method):
    """Two-sided zeroth-order method along one random direction per step. See the module's docstring.

    Args:
        params: as in `Method`; the random numbers are keyed by the names in the groups, else by position.
        lr: learning rate, in parameter units per unit slope; finite, >= 0.
        eps: perturbation radius, in parameter units; finite, > 0.
        seed: of the direction stream.

    Raises:
        ValueError: an argument out of range.
    """

    queries_per_step: int = 2
    has_directions: ClassVar[bool] = True
    replayable: ClassVar[bool] = True
    two_sided: ClassVar[bool] = True

    def __init__(self, params: Params, *, lr: float, eps: float, seed: int = 0) -> None:
        require("eps", eps, above=0.0)
        super().__init__(params, lr=lr, eps=float(eps), seed=int(seed))
        for group in self.param_groups:
            if group["eps"] != float(eps):
                raise ValueError(f"Invalid eps: {group['eps']!r} in one group. Must be the same in all groups.")

    @property
    def seed(self) -> int:
        """Seed of the direction stream."""
        return int(self.param_groups[0]["seed"])

    @property
    def follows_curvature(self) -> bool:
        """True for two-sided slopes that the update does not normalize."""
        return self.two_sided and self.normalizes == "nothing"

    def direction(self, step: int) -> Direction:
        """The direction u of `step`. Every subclass draws its own."""
        raise NotImplementedError

    def atom(self, step: int) -> int | None:
        """The atom that `step` queries in the first module; None if it queries all."""
        return None

    @property
    def queries_per_reading(self) -> int:
        """One query at theta, and two along the direction flipped in A where the parameters are LoRA pairs."""
        return 3 if self.has_halves else 1

    @property
    def queries_per_probe(self) -> int:
        """Two queries for the slope, and those of a curvature reading."""
        return 2 + self.queries_per_reading

    def flipped_in_A(self, step: int) -> Direction:
        """The direction of `step` with the other sign in the first parameter of every group."""
        u = self.direction(step)
        assert isinstance(u, LazyDirection)
        return u.flipped([group["params"][0] for group in self.param_groups])

    def over_tensors(self, component: Callable[[Key, torch.Tensor], torch.Tensor]) -> Direction:
        """The direction that has `component(key, parameter)` in every parameter."""
        slots = [Slot(param, param, partial(component, key, param), group) for key, param, group in self.tensors()]
        return LazyDirection(slots, whole=self.has_halves)

    def over_factors(self, factors: Callable[[Key, torch.Tensor], Factors]) -> Direction:
        """The direction that has left @ right' in every parameter, from `factors(key, parameter)`.

        For a parameter that is no matrix, `left` is None and `right` its component.
        """
        slots, low_rank = [], []
        for key, param, group in self.tensors():
            part = LowRankPart(param, *factors(key, param))
            slots.append(Slot(param, param, part.dense, group))
            low_rank.append(part)
        return LazyDirection(slots, low_rank=low_rank)

    def normal(self, like: torch.Tensor, shape: tuple[int, ...], step: int, *key: str | int) -> torch.Tensor:
        """Standard normal numbers on the device of a parameter, in its working precision.

        Args:
            like: the parameter.
            shape: of the numbers.
            step: the step, or the index of the subspace, that they belong to.
            key: of the parameter, and further names that tell streams apart.
        """
        z = normal(shape, self.seed, "direction", step, *key, device=like.device)
        return z.to(working_dtype(like))

    def signs(self, like: torch.Tensor, shape: tuple[int, ...], step: int, *key: str | int) -> torch.Tensor:
        """Random signs, +1 and -1, otherwise as `normal`."""
        z = signs(shape, self.seed, "direction", step, *key, device=like.device)
        return z.to(working_dtype(like))

    @torch.no_grad()
    def step(self, closure: Closure | Callable[[], float]) -> float:  # type: ignore[override]  # a closure is required
        """Take one step and return the loss estimate of its report.

        Raises:
            Diverged: a queried loss is not finite; the parameters and the state are as before the step.
        """
        u = self.direction(self.steps)
        report = self._query(closure, u)  # type: ignore[arg-type]  # floats serve as well
        self._update(u, report)
        self._finish(report)
        return report.loss

    @torch.no_grad()
    def replay(self, report: StepReport) -> None:
        """Take the next step again from its report, without a query, at the learning rates of the groups."""
        self._update(self.direction(report.step), report)
        self._finish(report)

    def _query(self, closure: Closure, u: Direction) -> StepReport:
        """Make the step's queries, which leave every bit of the parameters."""
        plus, minus = losses_along(closure, u, (self.eps, -self.eps))
        return self._two_sided_report(plus, minus)

    def _two_sided_report(self, plus: float, minus: float, curvature: float | None = None) -> StepReport:
        slope = (plus - minus) / (2 * self.eps)
        lr, atom = self.param_groups[0]["lr"], self.atom(self.steps)
        return StepReport(self.steps, (plus + minus) / 2, (slope,), lr, atom, curvature)

    def _update(self, u: Direction, report: StepReport) -> None:
        """Move the parameters, and the state with them."""
        move(u, report.slopes[0])
