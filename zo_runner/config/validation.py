"""The configuration: range checks, and `build`, the one caller of instantiate. No torch."""

import math
import re
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config import credentials
from zo_runner.config.schema import ATOMS, AUTO, BUDGET_UNITS, DTYPES, EVALUATIONS, JOBS, SCALINGS, TRAINS, RunConfig
from zo_runner.errors import UserError, invalid, one_of

# What a `_target_` may name, by package: a subclass of this, defined below it.
BUILDABLE = {
    "zo_runner.methods": ("zo_runner.methods.base", "Method"),
    "zo_runner.tasks": ("zo_runner.tasks.family", "Family"),
}
_TARGET = re.compile(r"(zo_runner\.(?:methods|tasks))((?:\.[a-z][a-z0-9_]*)?)\.([A-Za-z][A-Za-z0-9]*)")
_INSTRUCTION = re.compile(r"_[a-z]+_")

# Keys of a method or task node that describe it and are not arguments of its constructor.
DESCRIPTION = ("name", "version", "trains", "scaling", "lr_scale", "fallback")

# Arguments that only methods over LoRA's pairs of factors take: atoms, and the damping of AdaPreLoRA.
OF_PAIRS = ("atoms", "damping")

# What a calibration costs is counted before it begins, direction by direction.
MOST_PROBES = 10_000
# More than any machine has; torch takes no number of more than 31 bits.
MOST_THREADS = 65_536

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


def check(cfg: DictConfig) -> None:
    """Check every range that the schema's types cannot express.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    check_texts(OmegaConf.to_container(cfg, resolve=False))
    _known_keys(cfg, RunConfig)
    for key in ("model.name", "task.name", "method.name"):
        check_name(key, OmegaConf.select(cfg, key))
    for key in (
        "rank",
        "batch_size",
        "calibration.probes",
        "budget.eval_every",
        "budget.log_every",
        "noise.every",
    ):
        _at_least(cfg, key, 1)
    for key in (
        "seed",
        "noise.repeats",
        "calibration.every",
        "evaluate.shots",
        *(f"seeds.{name}" for name in cfg.seeds),
    ):
        _at_least(cfg, key, 0)
    _check_budget(cfg)
    _check_method_numbers(cfg)
    _check_probe(cfg)
    if cfg.runtime.threads is not None:
        _at_least(cfg, "runtime.threads", 1)
        if cfg.runtime.threads > MOST_THREADS:
            raise invalid("runtime.threads", cfg.runtime.threads, f"at most {MOST_THREADS}")
    if cfg.guard.still is not None and cfg.guard.still < 2:
        raise invalid("guard.still", cfg.guard.still, "an integer >= 2, or null")
    if cfg.guard.slope is not None and not (math.isfinite(cfg.guard.slope) and cfg.guard.slope > 1):
        raise invalid("guard.slope", cfg.guard.slope, "a finite number > 1, or null")
    if cfg.noise.repeats == 1:
        raise invalid("noise.repeats", 1, "0, or at least 2 to estimate a variance")
    if not (math.isfinite(cfg.alpha) and cfg.alpha > 0):
        raise invalid("alpha", cfg.alpha, "a finite number > 0")
    if not (math.isfinite(cfg.noise.std) and cfg.noise.std >= 0):
        raise invalid("noise.std", cfg.noise.std, "a finite number >= 0")
    if cfg.calibration.probes > MOST_PROBES:
        raise invalid("calibration.probes", cfg.calibration.probes, f"at most {MOST_PROBES}")
    walk = cfg.calibration.walk
    if walk is not None and not (math.isfinite(walk) and walk > 0):
        raise invalid("calibration.walk", walk, "a finite number > 0, or null")
    if cfg.runtime.checkpoint_every is not None:
        _at_least(cfg, "runtime.checkpoint_every", 1)
    if cfg.step is not None:
        _at_least(cfg, "step", 0)
    for key, options in (
        ("job", JOBS),
        ("model.bos", ("native", "mezo")),
        ("evaluate.split", ("dev", "test")),
        ("runtime.dtype", DTYPES),
        ("runtime.evaluation", EVALUATIONS),
        ("method.scaling", SCALINGS),
        ("method.trains", TRAINS),
    ):
        if OmegaConf.select(cfg, key) not in options:
            raise invalid(key, OmegaConf.select(cfg, key), one_of(options))
    if cfg.runtime.compile and (cfg.runtime.evaluation == "batched" or cfg.runtime.fold):
        raise invalid("runtime.compile", True, "false with runtime.evaluation=batched or runtime.fold=true")
    if cfg.runtime.device_map not in (None, AUTO):
        raise invalid("runtime.device_map", cfg.runtime.device_map, "null, or auto for a model beyond one accelerator")
    if cfg.runtime.device_map and cfg.runtime.device != AUTO:
        raise invalid("runtime.device", cfg.runtime.device, "auto with runtime.device_map=auto")
    if cfg.method.trains == "full" and not set(OF_PAIRS).isdisjoint(cfg.method):
        raise invalid("method.trains", "full", "adapter, since the method moves the two factors of LoRA together")
    if cfg.tracker.mode not in ("auto", "online", "offline"):
        raise invalid("tracker.mode", cfg.tracker.mode, "one of auto, offline, online")
    targets = cfg.adapter.target_modules
    listed = OmegaConf.is_list(targets) and len(targets) > 0 and all(isinstance(name, str) for name in targets)
    if not (listed or isinstance(targets, str)):
        raise invalid("adapter.target_modules", targets, "a list of names of modules, or all-linear")
    if cfg.model.trust_remote_code and not _COMMIT.fullmatch(cfg.model.revision or "0" * 40):
        allowed = (
            "the 40 hexadecimal digits of a commit, whose code model.trust_remote_code=true runs; a branch can move"
        )
        raise invalid("model.revision", cfg.model.revision, allowed)
    if cfg.model.path is None:
        raise invalid("model.path", None, "a folder of a causal language model, or a Hub id")


def check_name(key: str, name: object) -> None:
    """Check that a name can be that of a folder, and of none but its own.

    Raises:
        UserError: naming the key and the name.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        allowed = "letters, digits, dots, dashes and underscores, 100 at most, since it names a folder"
        raise invalid(key, name, allowed)


def check_texts(node: Any, key: str = "") -> None:
    """Check that values say what they mean: no number too long for torch, nothing to look up elsewhere, no credential.

    Everything in the configuration is written to config.yaml, and to W&B; `${oc.env:NAME}` would write the environment.

    Args:
        node: plain containers, their interpolations unresolved.
        key: where they stand.

    Raises:
        UserError: naming the key; a credential is not repeated.
    """
    if isinstance(node, int) and node.bit_length() > 63:
        raise invalid(key, node, "a number of 63 bits at most")
    if isinstance(node, str):
        if "${" in _REFERENCE.sub("", node):
            raise invalid(key, node, "without a resolver; the shell can put in what stands elsewhere")
        if credentials.holds(node):
            raise invalid(key, credentials.REMOVED, "without keys and tokens, which belong into the environment")
    elif isinstance(node, dict | list):
        for name, item in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(node, dict) and not isinstance(name, str):
                raise invalid(key, name, "keys that are texts")
            check_texts(item, f"{key}.{name}" if key else str(name))


def granted(cfg: DictConfig) -> dict[str, Any]:
    """What the budget grants, by unit: a number for one of them, None for the others."""
    queries, tokens, seconds = (cfg.budget[unit] for unit in BUDGET_UNITS)
    return {"queries": queries, "tokens": None if tokens is None else int(tokens), "seconds": seconds}


def _check_budget(cfg: DictConfig) -> None:
    given = {unit: cfg.budget[unit] for unit in BUDGET_UNITS}
    if sum(value is not None for value in given.values()) != 1:
        allowed = "exactly one of queries, tokens and seconds, the others null, as in budget.queries=null"
        raise invalid("budget", given, f"{allowed} budget.tokens=2e6")
    if given["queries"] is not None:
        _at_least(cfg, "budget.queries", 1)
    if given["tokens"] is not None and not (given["tokens"] >= 1 and float(given["tokens"]).is_integer()):
        raise invalid("budget.tokens", given["tokens"], "an integer >= 1, such as 2e6")
    if given["seconds"] is not None and not (math.isfinite(given["seconds"]) and given["seconds"] > 0):
        raise invalid("budget.seconds", given["seconds"], "a finite number > 0")


def _check_probe(cfg: DictConfig) -> None:
    for key, options in (("atoms", ATOMS), ("scalings", SCALINGS)):
        chosen = list(cfg.probe[key])
        if not chosen or not set(chosen) <= set(options) or len(set(chosen)) < len(chosen):
            raise invalid(f"probe.{key}", chosen, f"a list of different ones of {', '.join(options)}")
    ranks = list(cfg.probe.ranks)
    if not ranks or min(ranks) < 1 or len(set(ranks)) < len(ranks):
        raise invalid("probe.ranks", ranks, "a list of different integers >= 1")
    _at_least(cfg, "probe.inits", 1)
    _at_least(cfg, "probe.directions", max(2, cfg.probe.inits))
    _at_least(cfg, "probe.steps", 0)
    if cfg.job != "probe":
        return
    if cfg.method.trains != "adapter":
        raise invalid("method", cfg.method.name, "a method that trains an adapter, for job=probe")
    if not queries_slopes(cfg):
        raise invalid("method", cfg.method.name, "a zeroth-order method, for job=probe")
    if cfg.method.eps == AUTO or (cfg.probe.steps and cfg.method.lr == AUTO):
        key = "eps" if cfg.method.eps == AUTO else "lr"
        raise invalid(f"method.{key}", AUTO, "a number, for job=probe")


def _check_method_numbers(cfg: DictConfig) -> None:
    fallback = cfg.method.get("fallback", {})
    if not isinstance(fallback, dict | DictConfig) or (fallback and not {"lr", "eps"} <= set(fallback)):
        raise invalid("method.fallback", fallback, "an lr and an eps, for where they cannot be measured")
    for key, low in (("lr", ">= 0"), ("eps", "> 0"), ("lr_scale", "> 0")):
        value = cfg.method.get(key)
        measured = key != "lr_scale" and queries_slopes(cfg)
        if value is None or (value == AUTO and measured):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and low == "> 0"):
            choice = ", or auto" if measured else ""
            raise invalid(f"method.{key}", value, f"a finite number {low}{choice}")


def queries_slopes(cfg: DictConfig) -> bool:
    """Whether the method reads slopes off queries at a radius; one that differentiates the loss has none."""
    return "fallback" in cfg.method


def calibrates(cfg: DictConfig) -> bool:
    """Whether a run measures its learning rate or radius before it trains."""
    return AUTO in (cfg.method.get("lr"), cfg.method.get("eps"))


def _known_keys(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse keys that `+key=value` brought past the schema: they would have no effect."""
    for known in fields(schema):
        value = None if OmegaConf.is_missing(cfg, known.name) else cfg.get(known.name)
        if is_dataclass(known.type):
            if not isinstance(value, DictConfig):
                raise invalid(known.name, value, "one of its group, with the keys of that")
            _known_keys(value, known.type, f"{known.name}.")  # type: ignore[arg-type]  # a class, not an instance
        elif value is None and "None" not in str(known.type):
            raise invalid(f"{prefix}{known.name}", value, "given")
    for key in set(cfg) - {known.name for known in fields(schema)}:
        raise UserError(
            f"Unknown key {prefix + str(key)!r}. zo-run --help lists the keys, zo-run --cfg job shows them all."
        )


def _at_least(cfg: DictConfig, key: str, low: int) -> None:
    value = OmegaConf.select(cfg, key)
    if value < low:
        raise invalid(key, value, f"an integer >= {low}")


def build(node: DictConfig | dict[str, Any]) -> partial[Any]:
    """The constructor that a node names, with the node's arguments bound. The one place that turns a name into code.

    A name is looked up in the module that it gives, and not along attributes, which lead from any module to all that it
    imports; what is found counts by what it is, a method or a task.

    Raises:
        UserError: a `_target_` of anything else, or Hydra's instructions (`_target_`, `_args_`, ...) further down.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(plain, dict)
    kind = _buildable(plain.pop("_target_", None))
    if (late := plain.pop("_partial_", True)) is not True:
        raise invalid("_partial_", late, "true")
    _refuse_instructions(plain)
    return partial(kind, **{str(key): value for key, value in plain.items() if key not in DESCRIPTION})


def _buildable(target: object) -> type:
    if isinstance(target, str) and (found := _TARGET.fullmatch(target)):
        package, module, name = found.groups()
        base_module, base = BUILDABLE[package]
        try:
            kind = getattr(import_module(package + module), name, None)
        except ModuleNotFoundError:
            kind = None
        if isinstance(kind, type) and issubclass(kind, getattr(import_module(base_module), base)):
            return kind
    raise invalid("_target_", target, f"a class of {' or '.join(BUILDABLE)}")


def _refuse_instructions(node: Any) -> None:
    if isinstance(node, dict):
        for key, item in node.items():
            if isinstance(key, str) and _INSTRUCTION.fullmatch(key):
                raise invalid(key, item, "left out here: a node builds one thing, and its arguments are values")
            _refuse_instructions(item)
    elif isinstance(node, list):
        for item in node:
            _refuse_instructions(item)
