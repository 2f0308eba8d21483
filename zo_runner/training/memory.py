"""Peak memory of a run; memory of one step, tensor by tensor, where `runtime.measure_memory` asks for it.

The peak is, on a CUDA device, the most bytes that torch's allocator had handed out to tensors: weights, activations and
copies of perturbed parameters, without the context of CUDA and without the allocator's reserve. Elsewhere it is the
most memory that the process had resident since it began, Python, its libraries and earlier runs included.

The memory that a method needs beyond the model drowns in that. `StepMemory` counts the bytes of every tensor from its
making to its end, the same on every device, without what allocators round up, reserve or use within one operation.
"""

import resource
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = "tensors in CUDA's allocator"
RESIDENT = "resident set of the process since it began"


def reset_peak_memory() -> None:
    """Begin a new peak on every CUDA device; that of the process cannot be reset."""
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory(*devices: torch.device) -> dict[str, Any]:
    """Peak in bytes and its meaning, for result.json; of several accelerators the sum of their peaks."""
    if devices[0].type == "cuda":
        peak = sum(torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda")
        return {"peak_memory_bytes": peak, "peak_memory_of": CUDA}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024), "peak_memory_of": RESIDENT}


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is entered, until they are gone. It may be entered again.

    Attributes:
        peak: the most bytes that existed at once while it was entered; may be set.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.peak = self._live = 0
        self._made: dict[int, _Storage] = {}
        self._gone: list[_Storage] = []

    @property
    def live(self) -> int:
        """Bytes that exist now."""
        while self._gone:
            storage = self._gone.pop()
            del self._made[id(storage)]
            self._live -= storage.size
        return self._live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made; views and what is written in place make nothing."""
        out = func(*args, **(kwargs or {}))
        known = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if _has_storage(tensor)}
        for tensor in tree_leaves(out):
            if _has_storage(tensor) and id(storage := tensor.untyped_storage()) not in known:
                known.add(id(storage))
                # The callback is not Python, in which an interrupt would be raised and lost.
                made = _Storage(storage, self._gone.append)
                made.size = storage.nbytes()
                self._made[id(made)] = made
                self._live += made.size
        self.peak = max(self.peak, self.live)
        return out


class _Storage(weakref.ref[torch.UntypedStorage]):
    """Storage of a tensor, watched until it is freed."""

    __slots__ = ("size",)
    size: int


class StepMemory:
    """Memory of a method's second step, when all of its state is there.

    Attributes:
        inference: bytes that a bare forward of the step's batch takes beyond the model; None before it was measured.
        step: bytes that the step takes beyond the model, with the state that it finds and keeps; None likewise.
    """

    def __init__(self) -> None:
        self._tensors = TensorMemory()
        self.inference: int | None = None
        self.step: int | None = None

    def facts(self, model: torch.nn.Module) -> dict[str, int | None]:
        """As they enter result.json, beside the bytes of the model itself, adapters included."""
        tensors = [*model.parameters(), *model.buffers()]
        held = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}
        return {"model": sum(held.values()), "inference": self.inference, "step": self.step}

    def state(self) -> dict[str, int | None]:
        """State for `load`."""
        return {"inference": self.inference, "step": self.step}

    def load(self, state: dict[str, int | None]) -> None:
        """Take over what an earlier process has measured."""
        self.inference, self.step = state["inference"], state["step"]

    @contextmanager
    def of_state(self) -> Iterator[None]:
        """Count what the block makes as state that a later step finds."""
        with self._tensors:
            yield

    @contextmanager
    def of_inference(self) -> Iterator[None]:
        """Measure a forward, which is the block."""
        with self._from_here() as before:
            yield
        self.inference = self._tensors.peak - before

    @contextmanager
    def of_step(self) -> Iterator[None]:
        """Measure a step, which is the block. What earlier blocks made and is still there counts."""
        with self._from_here():
            yield
        self.step = self._tensors.peak

    @contextmanager
    def _from_here(self) -> Iterator[int]:
        self._tensors.peak = before = self._tensors.live
        with self._tensors:
            yield before


def _has_storage(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided
