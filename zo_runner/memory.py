"""Peak memory of a run."""

import resource
import sys
from pathlib import Path

import torch


class PeakMemory:
    """Measures the peak since it was made.

    On CUDA: the most bytes that tensors held on the current device. Elsewhere: the most memory the process had
    resident, libraries included; on Linux the mark is reset, so that a run in a multirun does not inherit the peak of
    an earlier one.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

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
