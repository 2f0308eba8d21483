"""Tensors from named random streams, see `seeds.fold_in`."""

import math

import torch

from zo_runner.seeds import fold_in


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh torch generator at the start of the stream `path`."""
    return torch.Generator(device=device).manual_seed(fold_in(seed, *path))


def normal(
    shape: torch.Size | tuple[int, ...], seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard normal float32 numbers of `shape`, drawn whole and contiguous on `device` from the stream `path`.

    A tensor is always drawn in one piece: torch's CPU draws depend on the tensor's size, so pieces would differ.
    """
    return torch.randn(shape, generator=generator(seed, *path, device=device), device=device, dtype=torch.float32)


def signs(
    shape: torch.Size | tuple[int, ...], seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Independent float32 numbers, +1 or -1 with probability 1/2 each, drawn on `device` from the stream `path`.

    Eight of them are the bits of a byte, lowest first, 1 for +1: all 256 bytes are equally likely, and so are then all
    256 rows of eight signs. That takes an eighth of the random numbers, where drawing is what takes the time.
    """
    size = math.prod(shape)
    bytes_ = torch.randint(
        256, (-(-size // 8),), generator=generator(seed, *path, device=device), device=device, dtype=torch.int32
    )
    rows = (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)) & 1
    return (2.0 * rows - 1.0).index_select(0, bytes_).flatten()[:size].reshape(shape)
