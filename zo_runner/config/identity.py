"""Run identity: what makes a run the run it is, so that the same command runs once. No torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config.schema import AUTO, GuardConfig
from zo_runner.config.validation import calibrates, granted, queries_slopes
from zo_runner.errors import invalid
from zo_runner.tasks.files import content, fingerprint, local_files


def identify(cfg: DictConfig) -> dict[str, Any]:
    """What makes a run the run it is: the resolved configuration without what cannot change a number.

    Left out: the tracker, `runtime` but for its dtype, names of presets, and keys without effect in this job or
    combination. A file or folder counts by its content, not its place.

    Raises:
        UserError: a path that leads nowhere.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    known: dict[str, Any] = {str(key): value for key, value in plain.items()}
    known["runtime"] = {"dtype": known["runtime"]["dtype"]}
    for key in ("model", "task"):
        _identify_path(known[key], key)
    if cfg.job == "evaluate":
        if cfg.evaluate.adapter is not None:
            known["evaluate"]["adapter"] = _content(cfg.evaluate.adapter, "evaluate.adapter")
        kept = {key: known[key] for key in ("job", "model", "task", "batch_size", "evaluate", "runtime")}
        return {**kept, "seeds": {"data": known["seeds"]["data"]}}
    if cfg.job == "probe":
        return _identity_of_probe(cfg, known)
    for key in (
        "run",
        "step",
        "job",
        "tracker",
        "seed",
        "evaluate",
        "probe",
        "sweep",
        "scale",
    ):  # the streams in `seeds` carry what `seed` means
        del known[key]
    for key in ("adapter", "noise"):
        del known[key]["name"]
    known["budget"] = {**granted(cfg), "eval_every": cfg.budget.eval_every}
    if cfg.method.get("lr") != AUTO:
        known["method"].pop("lr_scale", None)
        del known["calibration"]["every"], known["calibration"]["walk"]
    known["guard"] = {key: value for key, value in known["guard"].items() if value != getattr(GuardConfig, key)}
    if not queries_slopes(cfg):
        del known["noise"], known["seeds"]["direction"]
        known["guard"].pop("slope", None)
    if not known["guard"]:  # runs made before there was a guard keep their identity
        del known["guard"]
    if not calibrates(cfg):
        del known["calibration"]
        known["method"].pop("fallback", None)
    if known["method"]["trains"] == "full":
        known.get("calibration", {}).pop("walk", None)
        del known["rank"], known["alpha"], known["adapter"], known["seeds"]["adapter"], known["method"]["scaling"]
    elif known["method"].get("atoms") == "all":
        del known["method"]["order"], known["method"]["offsets"]
    return known


def _identity_of_probe(cfg: DictConfig, known: dict[str, Any]) -> dict[str, Any]:
    kept = {key: known[key] for key in ("job", "model", "task", "batch_size", "alpha", "probe", "seeds", "runtime")}
    if cfg.probe.adapter is not None:
        kept["probe"]["adapter"] = _content(cfg.probe.adapter, "probe.adapter")
    method = known["method"] if cfg.probe.steps else {"eps": known["method"]["eps"]}
    targets, noise = known["adapter"]["target_modules"], known["noise"]
    return {**kept, "method": method, "targets": targets, "noise": {key: noise[key] for key in ("std", "repeats")}}


def identify_model(cfg: DictConfig) -> dict[str, Any]:
    """The part of an identity that names the base model.

    Raises:
        UserError: a path that leads nowhere.
    """
    node = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(node, dict)
    known = {str(key): value for key, value in node.items()}
    _identify_path(known, "model")
    return known


def run_id(known: dict[str, Any]) -> str:
    """Ten hexadecimal digits of an identity."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]


def run_folder(cfg: DictConfig, known: dict[str, Any]) -> Path:
    """Where a run of that identity lies."""
    kind = cfg.method.name if cfg.job == "train" else cfg.job
    names = (cfg.task.name, cfg.model.name, kind, f"s{cfg.seed}-{run_id(known)}")
    return Path(cfg.runtime.root).joinpath(*names)


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
