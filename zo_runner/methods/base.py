"""The base class of all methods: a step, its report, and what the training loop needs to know.

A method is a `torch.optim.Optimizer` whose `step(closure)` spends `queries_per_step` queries. The closure returns the
loss of the current batch at the current parameters as a 0-d tensor. A zeroth-order method (`zeroth_order`) calls it
without gradients, once per query. A first-order method (`first_order`) calls it once and differentiates its loss.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from zo_runner.methods.directions import Direction
from zo_runner.methods.queries import Closure

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]]

Normalizes = Literal["nothing", "slope", "coordinates"]

# Names the random numbers of a parameter.
Key = tuple[str, ...]


@dataclass(frozen=True)
class StepReport:
    """The result of one step: enough, with the run's seed, to take it again without a query.

    Attributes:
        step: 0-based index of the step.
        loss: estimate of the loss at the parameters before the step, from the step's own queries.
        slopes: measured directional derivatives, in loss units per unit of u; empty for a first-order method.
        lr: learning rate of the first parameter group.
        atom: index of the queried atom, None for methods that query all at once.
        curvature: (l+ - 2 l0 + l-) / eps^2 along the direction, None for methods that do not measure it.
    """

    step: int
    loss: float
    slopes: tuple[float, ...]
    lr: float
    atom: int | None = None
    curvature: float | None = None


class Method(torch.optim.Optimizer):
    """A method as the training loop sees it.

    Args:
        params: tensors or parameter groups. A group may name its tensors (`names`) or itself (`name`), and hold the
            frozen weight that it adapts (`weight`).
        lr: learning rate; finite, >= 0.
        settings: further entries of every group, which `state_dict` carries.

    Attributes:
        queries_per_step: queries charged for a step, always the same.
        needs_grad: the closure's loss must come with its graph.
        has_directions: a step queries losses along `direction(step)`, at `eps` from the parameters.
        replayable: `replay` takes a step again from its report.
        two_sided: slopes are (l+ - l-) / (2 eps) and the reported loss is (l+ + l-) / 2; else the slopes are
            (l+ - l0) / eps and the reported loss is l0. Without meaning for a method without directions.
        normalizes: sizes that the update divides out. nothing: lr is in parameter units per unit slope. slope, the size
            of the slopes, or coordinates, the size of every coordinate on its own: lr is a length, in parameter units.
        report: of the latest step, None before the first.
        weights: the frozen weight of each group, None where it has none.

    Raises:
        ValueError: an argument out of range.
    """

    queries_per_step: int
    needs_grad: ClassVar[bool] = False
    has_directions: ClassVar[bool] = False
    replayable: ClassVar[bool] = False
    two_sided: ClassVar[bool] = False
    normalizes: ClassVar[Normalizes] = "nothing"

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

    @property
    def eps(self) -> float:
        """Perturbation radius, in parameter units; 0 for a method without directions."""
        return float(self.param_groups[0].get("eps", 0.0))

    @property
    def has_halves(self) -> bool:
        """True if the parameters are LoRA pairs, so that a direction has a half in A and a half in B."""
        return all(map(is_pair, self.param_groups))

    @property
    def follows_curvature(self) -> bool:
        """True if `CurvatureSchedule` may choose lr: it reads (l+ + l-) / 2 and presumes a step of lr * slope."""
        return False

    @property
    def queries_per_reading(self) -> int:
        """Queries of a curvature beside the losses at both ends of u; 0 for a method without directions."""
        return 0

    @property
    def queries_per_probe(self) -> int:
        """Queries of a slope and a curvature together; 0 for a method without directions."""
        return 0

    def direction(self, step: int) -> Direction:
        """The direction u of `step` in the method's present state; the same numbers whenever it is asked for.

        Raises:
            RuntimeError: the method has no directions.
        """
        raise RuntimeError(f"{type(self).__name__} has no directions.")

    def flipped_in_A(self, step: int) -> Direction:
        """The direction of `step` with the other sign in every A: (-z_a, z_b).

        Raises:
            RuntimeError: the method has no directions.
        """
        raise RuntimeError(f"{type(self).__name__} has no directions.")

    def tensors(self) -> Iterator[tuple[Key, torch.Tensor, dict[str, Any]]]:
        """Yield every parameter, with the key of its random numbers and its group.

        The key is the tensor's name; for the LoRA pair of a module the module's name and A or B; else its position.
        """
        for i, group in enumerate(self.param_groups):
            names, pair = group.get("names"), is_pair(group)
            for j, param in enumerate(group["params"]):
                key = (names[j],) if names else (group["name"], "AB"[j]) if pair else (f"{i}.{j}",)
                yield key, param, group

    def step(self, closure: Closure | Callable[[], float]) -> float:  # type: ignore[override]  # a closure is required
        """Take one step and return its estimate of the loss.

        Raises:
            Diverged: a loss is not finite.
        """
        raise NotImplementedError

    def replay(self, report: StepReport) -> None:
        """Take the next step again from its report, without a query, at the learning rates of the groups.

        Raises:
            RuntimeError: the method is not `replayable`.
        """
        raise RuntimeError(f"{type(self).__name__} cannot replay a step.")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; unlike torch's own method, keep the precision of the saved state."""
        super().load_state_dict(state_dict)
        params = [param for group in self.param_groups for param in group["params"]]
        for i, saved in state_dict["state"].items():
            for name, value in saved.items():
                self.state[params[i]][name] = value.to(params[i].device, copy=True)

    def _finish(self, report: StepReport) -> None:
        self.report = report
        for group in self.param_groups:
            group["steps"] = report.step + 1


def is_pair(group: dict[str, Any]) -> bool:
    """True if a group is the LoRA pair of a module, as `lora.lora_groups` makes it."""
    return "name" in group and len(group["params"]) == 2


def working_dtype(param: torch.Tensor) -> torch.dtype:
    """Precision of the numbers that are computed and kept for a parameter: its own, but float32 at least."""
    return torch.promote_types(param.dtype, torch.float32)


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


def require_count(name: str, value: int, at_least: int = 1) -> None:
    """Check the range of a constructor's argument that counts.

    Raises:
        ValueError: it is no integer, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"Invalid {name}: {value!r}. Must be an integer >= {at_least}.")
