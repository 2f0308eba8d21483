"""SGD by backpropagation: the plainest first-order ceiling.

    theta <- theta - lr * g,   g = d loss / d theta

symbol   argument      unit
eta      lr            parameter units per unit gradient

Per step: 1 forward and 1 backward, charged as 3 queries. Memory: activations and gradients.
Differs from torch.optim.SGD: no momentum and no weight decay; otherwise the same numbers, bit for bit. A loss or
gradient that is not finite stops the run.
Source: Robbins and Monro 1951, doi:10.1214/aoms/1177729586.
"""

from zo_runner.methods.base import Params
from zo_runner.methods.first_order import FirstOrder


class FOSGD(FirstOrder):
    """SGD over the given parameters. See the module's docstring.

    Args:
        params: as in `Method`.
        lr: learning rate, in parameter units per unit gradient; finite, >= 0.
    """

    def __init__(self, params: Params, *, lr: float) -> None:
        super().__init__(params, lr=lr)

    def update(self, step: int) -> None:
        """Step by theta <- theta - lr g."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and group["lr"] != 0.0:
                    p.add_(p.grad, alpha=-group["lr"])
