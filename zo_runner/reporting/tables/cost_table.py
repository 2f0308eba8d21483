"""The table of costs of a task and a model: queries, tokens, operations, seconds and bytes of every row. No torch.

Means over the seeds that are averaged in the main table. Seconds and bytes depend on the machine.
"""

from collections.abc import Collection, Sequence

import pandas as pd

from zo_runner.reporting.tables.aggregate import ResultRow
from zo_runner.reporting.tables.formats import number
from zo_runner.reporting.tables.score_table import leading, leading_texts
from zo_runner.reporting.tables.spec import Protocol
from zo_runner.reporting.tables.statistics import mean_sd

# column -> (field of a result and key in it, title, factor, format)
_COLUMNS: dict[str, tuple[tuple[str] | tuple[str, str], str, float, str]] = {
    "queries_train": (("queries", "train"), "queries train", 1, ".0f"),
    "queries_calibration": (("queries", "calibration"), "calibration", 1, ".0f"),
    "queries_noise": (("queries", "noise"), "noise", 1, ".0f"),
    "examples": (("examples",), "examples", 1, ".0f"),
    "tokens": (("tokens",), "tokens", 1, ".0f"),
    "flops": (("flops",), "FLOPs", 1, ".2e"),
    "seconds_train": (("seconds", "train"), "s train", 1, ".1f"),
    "seconds_calibration": (("seconds", "calibration"), "s calibration", 1, ".1f"),
    "seconds_noise": (("seconds", "noise"), "s noise", 1, ".1f"),
    "seconds_eval": (("seconds", "eval"), "s evaluation", 1, ".1f"),
    "seconds_per_step": (("seconds", "step_median"), "s/step", 1, ".4f"),
    "peak_memory_bytes": (("peak_memory_bytes",), "peak MiB", 2**-20, ".0f"),
    "model_bytes": (("memory_bytes", "model"), "model MiB", 2**-20, ".2f"),
    "inference_bytes": (("memory_bytes", "inference"), "forward MiB", 2**-20, ".2f"),
    "step_bytes": (("memory_bytes", "step"), "step MiB", 2**-20, ".2f"),
}


def numbers(
    rows: Sequence[ResultRow], protocol: Protocol | None = None, unmatched: Collection[str] = ()
) -> pd.DataFrame:
    """One line per row: means over its seeds, NaN where there is none or a seed does not say."""
    frame = leading(rows, protocol or Protocol(), unmatched)
    for name, (path, *_) in _COLUMNS.items():
        frame[name] = [mean_sd([result.amount(*path) for result in row.done])[0] for row in rows]
    extra = frame["step_bytes"] - frame["inference_bytes"]
    frame["over_inference"] = extra / (frame["model_bytes"] + frame["inference_bytes"])
    return frame


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as a person reads it."""
    shown = leading_texts(frame)
    for name, (_, title, factor, form) in _COLUMNS.items():
        shown[title] = [number(value * factor, form) for value in frame[name]]
    shown["over inference %"] = [number(value * 100, ".2f") for value in frame["over_inference"]]
    return pd.DataFrame(shown)


def caption(rows: Sequence[ResultRow]) -> str:
    """Meaning of the columns, and the kind of memory that the peak is of."""
    told = {result.peak_memory_of for row in rows for result in row.done} - {""}
    return (
        "Means over the n seeds. Examples, tokens and FLOPs (estimated) are those of charged queries, which are those "
        "of training and calibration; noise and evaluation are not charged. s/step is the median of a run. "
        f"Peak memory: {'; '.join(sorted(told)) or 'not said what of'}. Bytes of tensors: the model with its "
        "adapter; what a forward of the second step's batch adds; what that step adds, state included; and by how much "
        "of model and forward the step is over them."
    )
