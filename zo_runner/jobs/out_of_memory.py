"""Memory that ran out: one line that says what was being done and what to reduce. No torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omegaconf import DictConfig

from zo_runner.config.derived import queries_slopes
from zo_runner.errors import Fault, is_shortage

# What a person would call the phases of the ledger, and the one before them.
_DOING = {
    "load": "loading the model",
    "train": "taking a step",
    "calibration": "calibrating",
    "noise": "measuring the noise",
    "eval": "scoring dev or test",
}


@contextmanager
def shortage_told(cfg: DictConfig, phase: Callable[[], str | None]) -> Iterator[None]:
    """Let memory that runs out in the block end it in one line.

    Args:
        cfg: of the run; what it has reduced already is not named again.
        phase: where the run is: "load", a phase of the ledger, or None.

    Raises:
        Fault: memory ran out.
    """
    try:
        yield
    except Exception as error:  # an allocator raises what it likes; what is no shortage goes on as it was
        if isinstance(error, Fault) or not is_shortage(error):
            raise
        at = phase()
        place = f"while {_DOING[at]}" if at else f"in job={cfg.job}"
        # Of CUDA's paragraph what it begins with: that it is out of memory, and how much was asked for.
        reason = ". ".join(" ".join(str(error).split()).split(". ")[:2]).rstrip(".")
        reason = f" ({reason})" if reason else ""
        remedies = ", ".join(_remedies(cfg, at, accelerator=_of_accelerator(error)))
        raise Fault(f"Out of memory {place}{reason}. What takes less: {remedies}.") from error


def _of_accelerator(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "CU" in str(error)  # CUDA, CUBLAS and CUDNN


def _remedies(cfg: DictConfig, phase: str | None, *, accelerator: bool) -> list[str]:
    """Settings that take less memory, the smallest change to the run first."""
    found = []
    zeroth_order, adapter = queries_slopes(cfg), cfg.method.trains == "adapter"
    if cfg.job == "train" and phase in (None, "train", "calibration"):
        if zeroth_order and cfg.runtime.evaluation != "sequential":
            found.append("runtime.evaluation=sequential")
        if zeroth_order and adapter and cfg.runtime.fold is not False:
            found.append("runtime.fold=false")
    if accelerator and cfg.runtime.device_map is None:
        found.append("runtime.device_map=auto over several accelerators")
    if phase != "load":
        if cfg.batch_size > 1 and phase != "eval":
            found.append(f"a smaller batch_size than {cfg.batch_size}")
        length = cfg.task.get("max_length")
        found.append(f"a smaller task.max_length than {length}" if length else "task.max_length=N for shorter texts")
    if cfg.runtime.dtype == "float32":
        found.append("runtime.dtype=bfloat16")
    if cfg.job == "train" and phase != "load" and not (zeroth_order and adapter):
        found.append("a zeroth-order method on an adapter, as method=ar1zo")
    return [*found, "a smaller model"]
