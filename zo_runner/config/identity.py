"""Run identity: everything that can change a number of a run, so that the same command runs once. No torch."""

import hashlib
import json
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config.derived import granted
from zo_runner.config.ineffective_keys import ineffective_keys
from zo_runner.errors import invalid
from zo_runner.tasks.files import content, fingerprint, local_files

# Keys with an effect, but on no number: names, import paths, and words that say what other keys hold already (the
# streams in `seeds` follow `seed`; a method's declarations belong to its name and version).
NO_NUMBER = (
    *("tracker", "seed", "budget.log_every", "adapter.name", "budget.name", "noise.name"),
    *("task._target_", "task._partial_", "method._target_", "method._partial_"),
    *("method.needs_grad", "method.adapter_only", "method.ineffective"),
)


def identify(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration without the keys that cannot change a number.

    Left out: `ineffective_keys`, `NO_NUMBER`, and `runtime` but for its dtype. A file or folder counts by its content,
    not its place.

    Raises:
        UserError: a path that leads nowhere.
    """
    known = _plain(cfg)
    known["runtime"] = {"dtype": known["runtime"]["dtype"]}
    known["budget"] |= granted(cfg)
    for key in (*NO_NUMBER, *ineffective_keys(cfg)):
        *nodes, last = key.split(".")
        reduce(lambda node, name: node.get(name, {}), nodes, known).pop(last, None)
    for key in ("model", "task"):
        _identify_path(known[key], key)
    for job in ("evaluate", "probe"):
        if known.get(job, {}).get("adapter") is not None:
            known[job]["adapter"] = _content(known[job]["adapter"], f"{job}.adapter")
    return known


def identify_model(cfg: DictConfig) -> dict[str, Any]:
    """The part of an identity that names the base model.

    Raises:
        UserError: a path that leads nowhere.
    """
    known = _plain(cfg.model)
    _identify_path(known, "model")
    return known


def run_id(known: dict[str, Any]) -> str:
    """Ten hexadecimal digits of an identity."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]


def run_folder(cfg: DictConfig, known: dict[str, Any]) -> Path:
    """The folder of the run of that identity."""
    kind = cfg.method.name if cfg.job == "train" else cfg.job
    names = (cfg.task.name, cfg.model.name, kind, f"s{cfg.seed}-{run_id(known)}")
    return Path(cfg.runtime.root).joinpath(*names)


def _plain(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _identify_path(node: dict[str, Any], key: str) -> None:
    """Let the content of files stand for their path. A Hub id stays, and its revision with it."""
    path = node.get("path")
    if path is None or node.get("embedded"):
        return
    if key == "task":
        node["path"] = fingerprint(local_files(node))
        for origin in ("dataset", "config", "revision"):  # a local copy is read, whatever it is a copy of
            node.pop(origin, None)
    elif node.get("revision") is None or Path(path).expanduser().is_dir():
        node["path"] = _content(path, "model.path", needs="config.json")


def _content(path: str, key: str, needs: str = "") -> str:
    folder = Path(path).expanduser()
    if not (folder / needs).exists():
        raise invalid(key, path, f"a folder that holds {needs}" if needs else "a folder that exists")
    return content(folder)
