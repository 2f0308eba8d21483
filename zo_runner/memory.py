"""Peak memory of a run, and what is meant by it.

On a CUDA device it is the most bytes that torch's allocator had handed out to tensors: weights, activations and copies
of perturbed parameters, without the context of CUDA and without what the allocator holds in reserve. Elsewhere it is
the most memory that the process had resident at once, Python and its libraries included, so that only differences
between runs of one machine say something of a model.

Several runs may share a process. Each begins by freeing what an earlier one left behind, to the allocator and to the
system, and by resetting the high-water mark. Where the system has no such reset (macOS, or a kernel that forbids it),
the mark is the highest since the process began, and the reading says so.
"""

import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Any

import torch

CUDA = "tensors in CUDA's allocator"
RESIDENT = "resident set of the process"
RESIDENT_EVER = "resident set of the process since it began"

# Written to clear_refs, it sets VmHWM to what is resident now.
_RESET_PEAK = "5"


class PeakMemory:
    """Measures the peak since it was made."""

    def __init__(self) -> None:
        gc.collect()  # a model of an earlier run may hang in a cycle
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)
        _return_free_memory()
        try:
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
            self._reset = True
        except OSError:
            self._reset = False

    def read(self, device: torch.device) -> int:
        """Peak in bytes for a run on `device`."""
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        try:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def what(self, device: torch.device) -> str:
        """What `read` means on `device`."""
        if device.type == "cuda":
            return CUDA
        return RESIDENT if self._reset else RESIDENT_EVER

    def facts(self, device: torch.device) -> dict[str, Any]:
        """The peak and its meaning, as they enter result.json."""
        return {"peak_memory_bytes": self.read(device), "peak_memory_of": self.what(device)}


def _return_free_memory() -> None:
    """Let glibc return what was freed, or it would count as resident in the next run. Others lack the call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
