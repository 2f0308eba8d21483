"""Results of training runs, made up."""

import copy
from dataclasses import replace

from zo_runner.records.result import TrainResult

IDENTITY = {
    "model": {"name": "m", "path": "p", "revision": None, "embedded": False},
    "task": {"name": "t", "version": 1, "num_train": 10, "template": "{text} It was"},
    "method": {"name": "ar1zo", "lr": 1e-3, "eps": 1e-3, "order": "cyclic"},
    "adapter": {"target_modules": ["q_proj", "v_proj"]},
    "budget": {"queries": 40, "tokens": None, "seconds": None, "eval_every": 20},
    "noise": {"std": 0.0, "repeats": 8, "every": 100},
    "rank": 8,
    "alpha": 16.0,
    "batch_size": 16,
    "runtime": {"dtype": "float32"},
}


def put(node, key, value):
    """Set a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value


def identity(*, seed=0, **changes):
    """The identity of a run; `changes` are its keys with __ for dots."""
    known = copy.deepcopy(IDENTITY) | {"seeds": {"data": seed, "order": seed}}
    for key, value in changes.items():
        put(known, key.replace("__", "."), value)
    return known


def result(run_id, *, seed=0, status="done", accuracy=0.5, fd_snr_db=20.0, metric="accuracy", **changes):
    """The result of a training run; `changes` are keys of the identity with __ for dots."""
    known = identity(seed=seed, **changes)
    dev = {point: {"step": 19, "queries": 40, metric: accuracy, "loss": 1.0} for point in ("zero_shot", "best", "last")}
    return TrainResult(
        job="train",
        run_id=run_id,
        model=known["model"]["name"],
        task=known["task"]["name"],
        seed=seed,
        identity=known,
        status=status,
        peak_memory_bytes=3 * 2**20,
        method=known["method"]["name"],
        rank=known.get("rank"),
        metric=metric,
        metrics={"dev": dev, "test": {name: {metric: accuracy, "loss": 1.0} for name in ("best", "last")}},
        tested=True,
        provenance={"model_revision": "abc", "data_files": {"train.jsonl": "0" * 64}},
        budget={unit: known["budget"][unit] for unit in ("queries", "tokens", "seconds")},
        queries={"train": 38, "calibration": 2, "noise": 99},
        examples=640,
        tokens=1234,
        flops=5e9,
        evaluated=30,
        seconds={"train": 10.0, "calibration": 1.0, "noise": 2.0, "eval": 3.0, "total": 17.0, "step_median": 0.5},
        signal={"zo/fd_snr_db": fd_snr_db},
        peak_memory_of="resident set of the process",
    )


def hole(run_id, *, seed=0, status="missing", **changes):
    """A planned run that does not exist."""
    made = result(run_id, seed=seed, **changes)
    return replace(made, status=status, metric="", metrics={}, tested=False, signal={})


def without_adapter(made):
    """The same of a method that trains the full model: it has no rank."""
    for key in ("rank", "alpha", "adapter"):
        made.identity.pop(key, None)
    return replace(made, rank=None)


def cells(text):
    """The lines of the first Markdown table in a text: column -> cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, _, *rest = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rest if len(row) == len(header)]
