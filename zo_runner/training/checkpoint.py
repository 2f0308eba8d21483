"""Checkpoints: the trained parameters, the state of the method, and everything that the run has counted.

One file, since a file can be replaced as a whole, and tensors beside JSON, since nothing in it may be code: the tensors
are `parameter.GROUP.INDEX` and `state.INDEX.NAME`, the rest is JSON in the header, with a digest of both. What happened
after it was written is in the journal.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from zo_runner.errors import Fault
from zo_runner.methods.base import Method
from zo_runner.records import journal
from zo_runner.records.atomic_files import aside
from zo_runner.records.journal import Line
from zo_runner.records.json_files import decode, encode

NAME = "checkpoint.safetensors"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ResumeState:
    """State of an interrupted run.

    Attributes:
        state: JSON of its last checkpoint, as it was given to `save`.
        tensors: of the same.
        rows: of the journal, for the steps since. Of a method whose update the journal does not hold there are none.
        last: the line of the journal to go on after, None before the first.
    """

    state: dict[str, Any]
    tensors: Tensors
    rows: list[dict[str, Any]]
    last: Line | None

    @property
    def seconds(self) -> float:
        """Wall clock booked so far."""
        spent = self.rows[-1]["spent"] if self.rows else self.state["trainer"]["ledger"]
        return math.fsum(spent["seconds"].values())

    def restore(self, method: Method) -> None:
        """Restore the parameters and the state of a new method on the same parameters, bit for bit."""
        groups = self.state["method"]["groups"]
        with torch.no_grad():
            for g, group in enumerate(method.param_groups):
                for i, param in enumerate(group["params"]):
                    param.copy_(self.tensors[f"parameter.{g}.{i}"])
        values = {int(i): dict(entry) for i, entry in self.state["method"]["state"].items()}
        for name, tensor in self.tensors.items():
            kind, place, key = name.split(".", 2)
            if kind == "state":
                values.setdefault(int(place), {})[key] = tensor
        method.load_state_dict({"state": values, "param_groups": groups})


def save(file: Path, method: Method, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint.

    Args:
        file: checkpoint.safetensors.
        method: whose parameters and state are saved.
        state: what else, as JSON holds it.

    Raises:
        Fault: it cannot be written; the old one is still there.
    """
    tensors: Tensors = {}
    values: dict[str, dict[str, Any]] = {}
    saved = method.state_dict()
    for g, group in enumerate(method.param_groups):
        for i, param in enumerate(group["params"]):
            tensors[f"parameter.{g}.{i}"] = param.detach().cpu().contiguous()
    for place, entry in saved["state"].items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"state.{place}.{key}"] = value.detach().cpu().contiguous()
            else:
                values.setdefault(str(place), {})[key] = value
    text = json.dumps(encode({**state, "method": {"groups": saved["param_groups"], "state": values}}), allow_nan=False)
    with aside(file) as new:
        save_file(tensors, new, metadata={"state": text, "digest": _digest(text, tensors)})
        with new.open("rb") as stream:
            os.fsync(stream.fileno())


def load(file: Path) -> tuple[dict[str, Any], Tensors]:
    """The JSON and the tensors of a checkpoint.

    Raises:
        Fault: it is cut off, or was changed after it was written.
    """
    if not file.is_file():  # a pipe would be waited for
        raise Fault(_damaged(file, "it is no file"))
    try:
        with safe_open(str(file), framework="pt") as opened:
            header = opened.metadata() or {}
            tensors: Tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no dict
        text = header["state"]
        whole = header["digest"] == _digest(text, tensors)
    except (OSError, SafetensorError, KeyError) as error:
        raise Fault(_damaged(file, str(error))) from None
    if not whole:
        raise Fault(_damaged(file, "its digest does not fit"))
    return decode(json.loads(text)), tensors


def resume_state(folder: Path, run_id: str, *, replays: bool) -> ResumeState | None:
    """State of the interrupted run in a folder; None without a checkpoint.

    Args:
        folder: of the run.
        run_id: its id.
        replays: True if steps can be taken again from the journal.

    Raises:
        Fault: a file of it is damaged or missing.
    """
    file, log = folder / NAME, folder / journal.NAME
    if not file.exists():
        if log.exists() and log.stat().st_size > 0:
            raise Fault(_damaged(file, "it is missing, and the journal has steps"))
        return None
    state, tensors = load(file)
    if state["run_id"] != run_id:
        raise Fault(_damaged(file, f"it belongs to the run {state['run_id']}"))
    rows, last, count = [], None, 0
    for line in journal.read(log, run_id):
        if count == state["steps"] and not replays:
            break
        last = line
        if count >= state["steps"]:
            rows.append(line.row)
        count += 1
        if count == state["steps"] and line.sum != state["sum"]:
            raise Fault(_damaged(file, f"step {count - 1} of {log} is another one"))
    if count < state["steps"]:
        raise Fault(f"{log} ends after {count} steps, the checkpoint beside it was made after {state['steps']}.")
    return ResumeState(state, tensors, rows, last)


def _damaged(file: Path, reason: str) -> str:
    return f"{file} cannot be used: {reason}. With runtime.resume=false the run starts anew."


def _digest(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
