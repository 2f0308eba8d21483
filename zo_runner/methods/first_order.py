"""The base class of first-order methods: one loss, differentiated.

    g = d loss / d theta,   theta <- update(theta, g)

They are no zeroth-order methods but a ceiling for them. Per step: one forward and one backward, charged as 3 queries.
Memory: the activations of the batch, and one gradient per parameter, freed when the step ends.

In float16 a gradient below 6e-8 is 0. Where a weight is of float16 the loss is therefore multiplied by a power of two
before the backward, and the gradients divided by it after. Where they overflow, the backward is done again with a
smaller one, which is kept.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from zo_runner.errors import Diverged
from zo_runner.methods.base import Method, Params, StepReport
from zo_runner.methods.queries import Closure, finite

# The forward, and a backward, which takes the arithmetic of two forwards where every weight is trained.
QUERIES_PER_GRADIENT = 3

# The factor that a float16 loss begins with; torch.amp.GradScaler's own.
FIRST_SCALE = 2.0**16


class FirstOrder(Method):
    """First-order method. A subclass moves the parameters by their gradients, in `update(step)`.

    Args:
        params: as in `Method`.
        lr: learning rate; finite, >= 0. With 0 no bit of the parameters changes.
        settings: as in `Method`.
    """

    queries_per_step: int = QUERIES_PER_GRADIENT
    needs_grad: ClassVar[bool] = True

    def __init__(self, params: Params, *, lr: float, **settings: Any) -> None:
        super().__init__(params, lr=lr, **settings, loss_scale=1.0)
        weights = [*self.parameters, *(weight for weight in self.weights if weight is not None)]
        if any(weight.dtype == torch.float16 for weight in weights):
            self._rescale(FIRST_SCALE)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Every trained tensor."""
        return [p for group in self.param_groups for p in group["params"]]

    @property
    def leaves(self) -> list[torch.Tensor]:
        """Tensors that the loss is differentiated by. They require gradients during a step only."""
        return self.parameters

    def update(self, step: int) -> None:
        """Move the parameters by their `grad`, which is None where the loss does not depend on one."""
        raise NotImplementedError

    def step(self, closure: Closure | Callable[[], float]) -> float:  # type: ignore[override]  # a closure is required
        """Take one step and return the loss before it.

        Raises:
            Diverged: the loss or a gradient is not finite; the parameters and the state are as before the step.
            RuntimeError: the loss has no gradient.
        """
        step = self.steps
        with differentiated(self.leaves):
            with torch.enable_grad():
                loss = self.differentiate(closure)
            if not self.is_finite():
                raise Diverged("the gradient is not finite")
            with torch.no_grad():
                self.update(step)
        self._finish(StepReport(step, loss, (), self.param_groups[0]["lr"]))
        return loss

    def differentiate(self, closure: Closure | Callable[[], float]) -> float:
        """Return the loss, and leave its derivatives in the `grad` of each leaf."""
        loss = closure()
        value = finite(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
            raise RuntimeError(f"The loss has no gradient, which {type(self).__name__} needs.")
        while (scale := self.loss_scale) > 1:
            torch.autograd.backward(loss * scale, inputs=self.leaves, retain_graph=True)
            if self.is_finite():
                break
            for leaf in self.leaves:
                leaf.grad = None
            self._rescale(scale / 4)
        else:
            torch.autograd.backward(loss, inputs=self.leaves)
        for leaf in self.leaves:
            if leaf.grad is not None and scale > 1:
                leaf.grad.div_(scale)
        return value

    def is_finite(self) -> bool:
        """True if every gradient is finite."""
        return all(bool(p.grad.isfinite().all()) for p in self.parameters if p.grad is not None)

    @property
    def loss_scale(self) -> float:
        """Factor of the loss before the backward."""
        return float(self.param_groups[0]["loss_scale"])

    def _rescale(self, scale: float) -> None:
        for group in self.param_groups:
            group["loss_scale"] = scale


@contextmanager
def differentiated(leaves: Iterable[torch.Tensor]) -> Iterator[None]:
    """Let tensors require gradients within a block, which begins and ends without gradients."""
    found = [(leaf, leaf.requires_grad) for leaf in leaves]
    try:
        for leaf, _ in found:
            leaf.grad = None
            leaf.requires_grad_(True)
        yield
    finally:
        for leaf, required in found:
            leaf.grad = None
            leaf.requires_grad_(required)
