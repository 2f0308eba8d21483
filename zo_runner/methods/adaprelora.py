"""AdaPreLoRA: steps of LoRA's factors whose change of W comes closest to a step that Adafactor would take on W.

    R <- beta R + (1 - beta) mean_j G_ij^2,   C <- beta C + (1 - beta) mean_i G_ij^2,   G = d loss / d W
    H[X] = D_R X D_C,   D_R = diag(sqrt(R^ / mean R^)),   D_C = diag(sqrt(C^)),   R^ = R / (1 - beta^t) + floor, so C^
    dB, dA minimise  || s (dB A + B dA) - H^-1[G] ||_H,  and among all that do, the imbalance  || dB A - B dA ||_H :
        dB = s^-2 (D_R^-1 - B S_B^-1 B' / 2) G_B S_A^-1      S_A = A D_C A',   G_B = s G A'
        dA = s^-2 S_B^-1 G_A (D_C^-1 - A' S_A^-1 A / 2)      S_B = B' D_R B,   G_A = s B' G
    B <- B - lr dB,   A <- A - lr dA

symbol    argument      unit
eta       lr            change of an entry of W, at most about
beta      beta          none: share of R and C that stays
eps_1     floor         gradient units squared (`eps` is only ever a perturbation radius)
delta     damping       none: S_A and S_B are damped by it times the factors' mean square

Per step: 1 forward and 1 backward, charged as 3 queries. Memory beyond the activations: G of one module at a time, and
(d_out + d_in) r numbers per module; kept are d_out + d_in of them, R and C.

|| X ||_H^2 = <X, H[X]>. G_A and G_B are what autograd gives A and B. G itself is only needed for R and C: it is formed
in the backward, read and freed, module by module. At the start B = 0 and S_B has no inverse, so delta m mean(D_C) is
added to S_A and delta m mean(D_R) to S_B, with m the mean squared length of an atom's two halves: the step then does
not change with the units of the loss, and dA = 0 while B = 0.

Source: AdaPreLoRA, Ziyun Liu et al. 2026 (abstract; the full text was not available to us). Our readings: which
statistics are kept (Adafactor's, Shazeer and Stern 2018, arXiv:1804.04235, as moving averages with a fixed beta), the
damping, and no momentum.
"""

from collections.abc import Callable
from functools import partial

import torch

from zo_runner.methods.atoms import factors
from zo_runner.methods.base import Params, require
from zo_runner.methods.first_order import FirstOrder
from zo_runner.methods.queries import Closure


class AdaPreLoRA(FirstOrder):
    """AdaPreLoRA over the groups of `lora.lora_groups`. See the module's docstring.

    Args:
        params: one group per adapted module: {"params": [A (rank x in), B (out x rank)], "scaling": s, "weight": W}.
        lr: learning rate; finite, >= 0.
        beta: decay of the statistics; from 0, below 1.
        floor: added to the statistics; finite, > 0.
        damping: of the inverses; finite, > 0.

    Raises:
        ValueError: an argument out of range, or groups that are not LoRA pairs with their scaling and frozen weight.
    """

    def __init__(
        self, params: Params, *, lr: float, beta: float = 0.99, floor: float = 1e-30, damping: float = 1e-2
    ) -> None:
        require("beta", beta, at_least=0.0, below=1.0)
        require("floor", floor, above=0.0)
        require("damping", damping, above=0.0)
        super().__init__(params, lr=lr, beta=beta, floor=floor, damping=damping)
        self.frozen: list[torch.Tensor] = []
        for group, weight in zip(self.param_groups, self.weights, strict=True):
            a_RI, b_OR = factors(group)
            if weight is None or weight.shape != (b_OR.shape[0], a_RI.shape[1]) or "scaling" not in group:
                name = group.get("name", "one group")
                raise ValueError(f"Invalid parameter group: {name}. Must have its scaling and its weight (out x in).")
            self.frozen.append(weight)
        self._means: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def leaves(self) -> list[torch.Tensor]:
        """The factors, and the weights, whose gradients are read and freed module by module."""
        return [*self.parameters, *self.frozen]

    def differentiate(self, closure: Closure | Callable[[], float]) -> float:
        """Return the loss; reduce G of every module to its row and column means as soon as it is formed."""
        hooks = [w.register_post_accumulate_grad_hook(partial(self._read, i)) for i, w in enumerate(self.frozen)]
        try:
            return super().differentiate(closure)
        finally:
            for hook in hooks:
                hook.remove()

    def _read(self, i: int, weight: torch.Tensor) -> None:
        g_OI, weight.grad = weight.grad, None
        if g_OI is not None:
            dtype = self.param_groups[i]["params"][0].dtype
            norms = (torch.linalg.vector_norm(g_OI, dim=d, dtype=dtype) / self.loss_scale for d in (1, 0))
            row_O, col_I = (norm.square() / size for norm, size in zip(norms, reversed(g_OI.shape), strict=True))
            self._means[i] = (row_O, col_I)

    def is_finite(self) -> bool:
        """True if the gradients of the factors and the means of G are finite."""
        means = (mean for pair in self._means.values() for mean in pair)
        return super().is_finite() and all(bool(mean.isfinite().all()) for mean in means)

    def update(self, step: int) -> None:
        """Update the statistics, then step both factors of every module."""
        for i, group in enumerate(self.param_groups):
            a_RI, b_OR = group["params"]
            if a_RI.grad is None or b_OR.grad is None:
                continue
            state, beta = self.state[a_RI], group["beta"]
            corrected = []
            for name, mean in zip(("R", "C"), self._means[i], strict=True):
                if name not in state:
                    state[name] = torch.zeros_like(mean)
                state[name].lerp_(mean, 1 - beta)
                corrected.append(state[name] / (1 - beta ** (step + 1)) + group["floor"])
            row_O, col_I = corrected
            d_R, d_C = (row_O / row_O.mean()).sqrt(), col_I.sqrt()
            if group["lr"] != 0.0:
                delta_a, delta_b = factor_steps(
                    a_RI, b_OR, a_RI.grad, b_OR.grad, d_R, d_C, scaling=group["scaling"], damping=group["damping"]
                )
                a_RI.sub_(delta_a, alpha=group["lr"])
                b_OR.sub_(delta_b, alpha=group["lr"])
        self._means.clear()


def factor_steps(
    a_RI: torch.Tensor,
    b_OR: torch.Tensor,
    g_a_RI: torch.Tensor,
    g_b_OR: torch.Tensor,
    d_R: torch.Tensor,
    d_C: torch.Tensor,
    *,
    scaling: float,
    damping: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps (dA, dB) of the module's docstring. d_R [O] and d_C [I] are the diagonals of D_R and D_C."""
    size = (a_RI.square().sum() + b_OR.square().sum()) / (2 * len(a_RI))
    eye = damping * size * torch.eye(len(a_RI), dtype=a_RI.dtype, device=a_RI.device)
    s_a_RR = (a_RI * d_C) @ a_RI.T + d_C.mean() * eye
    s_b_RR = b_OR.T @ (d_R[:, None] * b_OR) + d_R.mean() * eye
    y_OR = torch.linalg.solve(s_a_RR, g_b_OR, left=False)
    z_RI = torch.linalg.solve(s_b_RR, g_a_RI)
    delta_b = y_OR / d_R[:, None] - b_OR @ torch.linalg.solve(s_b_RR, b_OR.T @ y_OR) / 2
    delta_a = z_RI / d_C - (z_RI @ a_RI.T) @ torch.linalg.solve(s_a_RR, a_RI) / 2
    return delta_a / scaling**2, delta_b / scaling**2
