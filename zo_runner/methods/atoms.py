"""LoRA as a sum of rank-1 atoms.

A LoRA module adds  dW = s B A = s * sum_k b_k a_k^T  to a frozen weight: row a_k of A and column b_k of B are atom k.

Shape letters: O = out features, I = in features, R = stored rank.
"""

from typing import Any, Literal, get_args

import torch

from zo_runner.methods.random import generator

Order = Literal["cyclic", "shuffled", "random"]
Offsets = Literal["shared", "per_module"]
Scaling = Literal["canonical", "rslora", "topology"]

ORDERS: tuple[str, ...] = get_args(Order)
OFFSETS: tuple[str, ...] = get_args(Offsets)


def lora_alpha(scaling: Scaling | str, alpha: float, rank: int) -> float:
    """The numerator gamma that PEFT takes as `lora_alpha`.

    canonical  gamma = alpha        s = alpha / r
    rslora     gamma = alpha        s = alpha / sqrt(r)   (PEFT divides by sqrt(r) itself: `use_rslora=True`)
    topology   gamma = alpha * r    s = alpha             (AR1-ZO, arXiv:2605.19767)

    Raises:
        ValueError: unknown scaling.
    """
    if scaling not in get_args(Scaling):
        raise ValueError(f"Invalid scaling: {scaling!r}. Must be one of {', '.join(get_args(Scaling))}.")
    return alpha * rank if scaling == "topology" else alpha


def factors(group: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(a_RI, b_OR) of a parameter group made by `lora.lora_groups`.

    Raises:
        ValueError: the group is not one LoRA pair.
    """
    params = group["params"]
    if len(params) != 2 or params[0].dim() != 2 or params[1].dim() != 2 or params[0].shape[0] != params[1].shape[1]:
        shapes = [tuple(p.shape) for p in params]
        raise ValueError(f"Invalid parameter group: {shapes}. Must be one pair A (rank x in), B (out x rank).")
    return params[0], params[1]


def atom(a_RI: torch.Tensor, b_OR: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Atom k as two views, (a_k [I], b_k [O]): writing to them writes to the adapter."""
    return a_RI[k], b_OR[:, k]


def atom_at(order: Order, step: int, rank: int, seed: int) -> int:
    """Index of the atom that `step` queries.

    cyclic    0, 1, ..., r-1, 0, ...
    shuffled  a fresh permutation each pass, so that r steps still visit every atom once
    random    independent and uniform
    """
    if order == "cyclic":
        return step % rank
    if order == "shuffled":
        permutation = torch.randperm(rank, generator=generator(seed, "atom", "pass", step // rank))
        return int(permutation[step % rank])
    return int(torch.randint(rank, (), generator=generator(seed, "atom", "step", step)))
