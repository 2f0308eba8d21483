"""One forward at several points: forward hooks add low-rank perturbations, and no parameter is written to.

With rows repeated once per point, every module computes its usual output, and a forward hook adds the effect of the
perturbation of its own parameters: t (x right) left' to the output of a linear layer with weight W + t left
right'. Hooks are registered for one forward and removed after it; nothing is written to any parameter.

Shapes: D directions, F offsets along each, P = D F points in that order; rows of the forward are ordered by point.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from zo_runner.devices import moved
from zo_runner.methods.directions import LowRankPart

# A module that is neither linear nor an embedding, such as a norm, is computed once per point with parameters of its
# own. Up to this many numbers that is cheap.
OWN_COPY_NUMBERS = 2**24


class PointHooks:
    """Adds perturbations to a model's forwards.

    Args:
        model: whose parameters directions perturb. Adapters are attached to it before and not after.
    """

    def __init__(self, model: nn.Module) -> None:
        self._owners: dict[torch.Tensor, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for name, param in module.named_parameters(recurse=False):
                self._owners.setdefault(param, []).append((module, name))
        # The tokens that an expert sees are chosen by the input, so that its rows are not ordered by point.
        self._routes = any("expert" in name for name, _ in model.named_modules())

    def covers(self, parts: Sequence[LowRankPart]) -> bool:
        """True if hooks can add all parts of a direction."""
        return not self._routes and all(
            param in self._owners and all(_covers(*owner, left) for owner in self._owners[param])
            for param, left, _ in parts
        )

    @contextmanager
    def at(self, directions: Sequence[Sequence[LowRankPart]], offsets: Sequence[float]) -> Iterator[None]:
        """Evaluate forwards within a block at the points; their rows are repeated once per point.

        Args:
            directions: parts of D directions, over the same parameters in the same order.
            offsets: F offsets, the same along each.
        """
        param = directions[0][0].param
        # In float32 at least: bfloat16 would round eps itself by up to 0.4 %, and a slope with it.
        t_F = moved(torch.tensor(offsets, dtype=torch.promote_types(param.dtype, torch.float32)), param.device)
        shares: dict[nn.Module, dict[str, list[LowRankPart]]] = {}
        for parts in zip(*directions, strict=True):
            for module, name in self._owners[parts[0].param]:
                shares.setdefault(module, {})[name] = list(parts)
        with ExitStack() as hooks:
            for module, share in shares.items():
                hook = _hook(module, share, t_F)
                handle = module.register_forward_hook(hook, with_kwargs=True)
                hooks.callback(handle.remove)
            yield


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    """True if a module has the forward of `kind`, not one of its own."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _covers(module: nn.Module, name: str, left: torch.Tensor | int | None) -> bool:
    if _is(module, nn.Linear) or (_is(module, nn.Embedding) and isinstance(left, torch.Tensor)):
        return True
    small = sum(p.numel() for p in module.parameters()) <= OWN_COPY_NUMBERS
    return small and not any(True for _ in module.children())


def _hook(module: nn.Module, share: dict[str, list[LowRankPart]], t_F: torch.Tensor) -> Any:
    if _is(module, nn.Linear):
        return partial(_linear, share.get("weight"), share.get("bias"), t_F)
    if _is(module, nn.Embedding) and isinstance(share["weight"][0].left, torch.Tensor):
        return partial(_embedding, share["weight"], t_F)
    return partial(_computed_per_point, share, t_F, [])


def _linear(
    weight: list[LowRankPart] | None,
    bias: list[LowRankPart] | None,
    t_F: torch.Tensor,
    module: nn.Linear,
    args: tuple[torch.Tensor],
    kwargs: Any,
    out: torch.Tensor,
) -> torch.Tensor:
    """Add t x u' to `out`, a fresh tensor, for each point."""
    for d, t, x, y in _by_direction(args[0], out, t_F, len(weight or bias or ())):
        if weight is not None:
            _add_linear(weight[d], t, x, y)
        if bias is not None:
            y.add_(t * bias[d].right)
    return out


def _by_direction(
    x: torch.Tensor, out: torch.Tensor, t_F: torch.Tensor, directions: int
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (d, t [F, 1, 1], x [F, N, I], out [F, N, O]) for each direction."""
    t = t_F.to(out.device)[:, None, None]
    per_direction = x.reshape(directions, len(t_F), -1, x.shape[-1])
    filled = out.view(directions, len(t_F), -1, out.shape[-1])
    for d in range(directions):
        yield d, t, per_direction[d], filled[d]


def _add_linear(u: LowRankPart, t: torch.Tensor, x_FNI: torch.Tensor, y_FNO: torch.Tensor) -> None:
    right = u.right
    if u.left is None:
        assert isinstance(right, torch.Tensor)
        y_FNO.add_(t * (x_FNI @ right.to(x_FNI.dtype).T))
        return
    h_FNR = t * (x_FNI[..., right : right + 1] if isinstance(right, int) else x_FNI @ right.to(x_FNI.dtype))
    if isinstance(u.left, int):
        y_FNO[..., u.left].add_(h_FNR[..., 0])
    elif u.left.shape[1] == 1:
        y_FNO.addcmul_(h_FNR, u.left[:, 0])
    else:
        y_FNO.add_(h_FNR @ u.left.to(h_FNR.dtype).T)


def _embedding(
    weight: list[LowRankPart],
    t_F: torch.Tensor,
    module: nn.Embedding,
    args: tuple[torch.Tensor],
    kwargs: Any,
    out: torch.Tensor,
) -> torch.Tensor:
    """Add t left[ids] right' to `out`, a fresh tensor, for each point."""
    ids = args[0][..., None]
    for d, t, i_FN1, y_FNH in _by_direction(ids, out, t_F, len(weight)):
        left, right = weight[d].left, weight[d].right
        assert isinstance(left, torch.Tensor)
        assert isinstance(right, torch.Tensor)
        y_FNH.add_(t * (left[i_FN1[..., 0]].to(t.dtype) @ right.to(t.dtype).T))
    return out


def _computed_per_point(
    share: dict[str, list[LowRankPart]],
    t_F: torch.Tensor,
    under_way: list[bool],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: torch.Tensor,
) -> torch.Tensor | None:
    """Compute the module itself at every point, on that point's rows."""
    if under_way:  # functional_call calls the module, and the module its hooks
        return None
    under_way.append(True)
    directions, outputs = len(next(iter(share.values()))), []
    points = directions * len(t_F)
    try:
        for p in range(points):
            d, t = p // len(t_F), t_F[p % len(t_F)]
            params = {
                name: (param + t * share[name][d].dense()).to(param.dtype) if name in share else param
                for name, param in module.named_parameters()
            }
            some = tuple(_rows_of(p, points, value) for value in args)
            named = {key: _rows_of(p, points, value) for key, value in kwargs.items()}
            outputs.append(functional_call(module, params, some, named))
    finally:
        under_way.clear()
    return torch.cat(outputs)


def _rows_of(p: int, points: int, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] % points == 0:
        return value.chunk(points)[p]
    return value
