"""Runs as a kill would leave them at any moment, and what they should come to."""

import shutil

from tests.cli.helpers import SMALL, read_journal, read_json, read_jsonl
from zo_runner.records.journal import Journal
from zo_runner.records.run_directory import RunDirectory
from zo_runner.training import checkpoint

# 12 steps of two queries; dev after 6 of them, a checkpoint after 4 and 8 as well.
COMMAND = (*SMALL, "budget.queries=24", "budget.eval_every=12", "runtime.checkpoint_every=8", "budget.log_every=2")
MEASURED = ("seconds", "peak_memory_bytes", "peak_memory_of", "memory_bytes", "checksum")


def left(run):
    """All that a run leaves but for what clocks and memory say."""
    result = {key: value for key, value in read_json(run / "result.json").items() if key not in MEASURED}
    metrics = read_jsonl(run / "metrics.jsonl")
    for event in metrics:
        event.pop("seconds", None)
    tensors = {file.relative_to(run): file.read_bytes() for file in run.rglob("*.safetensors")}
    return {"result": result, "journal": read_journal(run), "metrics": metrics, **tensors}


def differing(run, expected):
    """What a run left otherwise than it should have."""
    found = left(run)
    return {key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)}


def watched(monkeypatch, root, moments):
    """Copy `root` to `moments`/0, 1, ... before and after whatever is written to a run under way."""
    count = iter(range(10**6))

    def around(owner, name):
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            shutil.copytree(root, moments / str(next(count)))
            done = original(*arguments, **options)
            shutil.copytree(root, moments / str(next(count)))
            return done

        monkeypatch.setattr(owner, name, wrapped)

    for owner, name in ((Journal, "append"), (RunDirectory, "log"), (RunDirectory, "replace"), (checkpoint, "save")):
        around(owner, name)
