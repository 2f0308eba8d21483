"""Sampler: indices of the training examples of each step."""

import torch

from zo_runner.methods.random import generator


class BatchOrder:
    """Examples of each step: permutations of the training set, one after the other, without incomplete batches.

    Args:
        size: number of training examples.
        batch_size: examples per batch, at most `size`.
        seed: of the order stream.

    Raises:
        ValueError: batch_size out of range.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= size:
            raise ValueError(f"Invalid batch_size: {batch_size!r}. Must be from 1 to the {size} training examples.")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._epoch = -1
        self._permutation: list[int] = []

    def __getitem__(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.size // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = torch.randperm(self.size, generator=generator(self.seed, "order", epoch)).tolist()
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]
