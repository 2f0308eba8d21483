"""Transfer of tensors between devices."""

import torch


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the CPU on `device`. To CUDA it goes through pinned memory: the copy queues up and nobody waits."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
