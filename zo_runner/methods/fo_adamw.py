"""AdamW by backpropagation: the usual optimizer of LoRA, and so the ceiling to compare with.

    m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g*g,   g = d loss / d theta
    theta <- (1 - lr lambda) theta - lr m^ / (sqrt(v^) + floor),   m^ = m / (1 - beta1^t),   v^ = v / (1 - beta2^t)

symbol   argument      unit
eta      lr            parameter units per step, at most
beta1    beta1         none: share of m that stays
beta2    beta2         none: share of v that stays
lambda   weight_decay  1 / parameter units: share of theta that one step at lr = 1 would take
epsilon  floor         gradient units (`eps` is only ever a perturbation radius)

Per step: 1 forward and 1 backward, charged as 3 queries. Memory: activations, gradients, m and v.
Differs from torch.optim.AdamW: the same numbers, bit for bit, without its variants. A loss or gradient that is not
finite stops the run.
Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2.
"""

import math

import torch

from zo_runner.methods.base import Params, require
from zo_runner.methods.first_order import FirstOrder


class FOAdamW(FirstOrder):
    """AdamW over the given parameters. See the module's docstring.

    Args:
        params: as in `Method`.
        lr: learning rate, in parameter units per step; finite, >= 0.
        beta1: decay of the first moment; from 0, below 1.
        beta2: decay of the second moment; from 0, below 1.
        weight_decay: decoupled; finite, >= 0.
        floor: added to the root of the second moment; finite, > 0.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        floor: float = 1e-8,
    ) -> None:
        require("beta1", beta1, at_least=0.0, below=1.0)
        require("beta2", beta2, at_least=0.0, below=1.0)
        require("weight_decay", weight_decay, at_least=0.0)
        require("floor", floor, above=0.0)
        super().__init__(params, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay, floor=floor)

    def update(self, step: int) -> None:
        """Take one step of AdamW, with the gradients in `grad`."""
        for group in self.param_groups:
            lr, beta1, beta2 = group["lr"], group["beta1"], group["beta2"]
            scale1, scale2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                m, v = state["m"], state["v"]
                m.lerp_(p.grad, 1 - beta1)
                v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                if lr != 0.0:
                    p.mul_(1 - lr * group["weight_decay"])
                    p.addcdiv_(m, (v.sqrt() / math.sqrt(scale2)).add_(group["floor"]), value=-lr / scale1)
