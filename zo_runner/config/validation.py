"""Checks of a composed configuration: keys, ranges, and rules between keys. No torch."""

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from zo_runner.config import credentials
from zo_runner.config.derived import queries_slopes
from zo_runner.config.schema import AUTO, BUDGET_UNITS, MethodConfig, RunConfig
from zo_runner.errors import UserError, invalid, one_of

_BOUNDS = {"ge": (operator.ge, ">="), "gt": (operator.gt, ">"), "le": (operator.le, "<=")}

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


def check(cfg: DictConfig) -> None:
    """Check keys, ranges and the rules between keys.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    check_texts(OmegaConf.to_container(cfg, resolve=False))
    _check_fields(cfg, RunConfig)
    for key in ("model.name", "task.name", "method.name"):
        check_name(key, OmegaConf.select(cfg, key))
    _check_method(cfg)
    _check_probe(cfg)
    given = {unit: cfg.budget[unit] for unit in BUDGET_UNITS}
    if sum(value is not None for value in given.values()) != 1:
        allowed = "exactly one of queries, tokens and seconds, the others null, as in budget.queries=null"
        raise invalid("budget", given, f"{allowed} budget.tokens=2e6")
    if cfg.noise.repeats == 1:
        raise invalid("noise.repeats", 1, "0, or at least 2 to estimate a variance")
    if cfg.runtime.compile and (cfg.runtime.evaluation == "batched" or cfg.runtime.fold):
        raise invalid("runtime.compile", True, "false with runtime.evaluation=batched or runtime.fold=true")
    if cfg.runtime.device_map and cfg.runtime.device != AUTO:
        raise invalid("runtime.device", cfg.runtime.device, "auto with runtime.device_map=auto")
    targets = cfg.adapter.target_modules
    listed = OmegaConf.is_list(targets) and len(targets) > 0 and all(isinstance(name, str) for name in targets)
    if not (listed or isinstance(targets, str)):
        raise invalid("adapter.target_modules", targets, "a list of names of modules, or all-linear")
    if cfg.model.trust_remote_code and not _COMMIT.fullmatch(cfg.model.revision or "0" * 40):
        allowed = "the 40 hexadecimal digits of a commit, since model.trust_remote_code=true runs its code"
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
    """Refuse numbers too long for torch, resolvers and credentials.

    Everything in the configuration is written to config.yaml, and to W&B; `${oc.env:NAME}` would write the environment.

    Args:
        node: plain containers, their interpolations unresolved.
        key: of the node.

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


def _check_fields(node: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse values out of the schema's ranges, and keys that `+key=value` brought past it and nothing would read."""
    for known in fields(schema):
        value = None if OmegaConf.is_missing(node, known.name) else node[known.name]
        if is_dataclass(known.type):
            if not isinstance(value, DictConfig):
                raise invalid(known.name, value, "one of its group, with the keys of that")
            _check_fields(value, known.type, f"{known.name}.")  # type: ignore[arg-type]  # a class, not an instance
        else:
            _check_field(prefix + known.name, value, known)
    for key in set(node) - {known.name for known in fields(schema)}:
        raise UserError(
            f"Unknown key {prefix + str(key)!r}. zo-run --help lists the keys, zo-run --cfg job shows them all."
        )


def _check_field(key: str, value: Any, known: Field[Any]) -> None:
    """Check a value, or each item of a list, against the type and the `metadata` of its field."""
    rules, kind = known.metadata, str(known.type)
    nullable = "None" in kind
    if value is None:
        fits = nullable
    elif not rules:
        return
    else:
        items = list(value) if OmegaConf.is_list(value) else [value]
        fits = all(_fits(item, rules) for item in items) and len(set(items)) == len(items) > 0
    if not fits:
        raise invalid(key, value, _allowed(rules, kind) + (", or null" if nullable else ""))


def _fits(value: Any, rules: Mapping[str, Any]) -> bool:
    if "options" in rules:
        return value in rules["options"]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    whole = "integer" not in rules or float(value).is_integer() if number else False
    return whole and all(_BOUNDS[name][0](value, bound) for name, bound in rules.items() if name in _BOUNDS)


def _allowed(rules: Mapping[str, Any], kind: str) -> str:
    if not rules:
        return "given"
    many = kind.startswith("list")
    if "options" in rules:
        return ("a list of different values, each " if many else "") + one_of(rules["options"])
    number = "an integer" if "int" in kind or "integer" in rules else "a finite number"
    bounds = " and ".join(f"{sign} {rules[name]:g}" for name, (_, sign) in _BOUNDS.items() if name in rules)
    return ("a list of different values, each " if many else "") + f"{number} {bounds}".strip()


def _check_method(cfg: DictConfig) -> None:
    method, zeroth_order = cfg.method, queries_slopes(cfg)
    for known in fields(MethodConfig):
        value = method.get(known.name)
        if known.metadata and (value is not None or known.default == MISSING):
            _check_field(f"method.{known.name}", value, known)
    if method.get("adapter_only") and method.trains != "adapter":
        raise invalid(
            "method.trains", method.trains, "adapter, since the method moves the two factors of LoRA together"
        )
    conditions = method.get("ineffective", {})
    if not (isinstance(conditions, Mapping) and all(isinstance(item, Mapping) for item in conditions.values())):
        raise invalid("method.ineffective", conditions, "arguments with the values of others, as {order: {atoms: all}}")
    for key, least in (("lr", "ge"), ("eps", "gt")):
        value = method.get(key)
        if value is not None and not (value == AUTO and zeroth_order) and not _fits(value, {least: 0}):
            choice = ", or auto" if zeroth_order else ""
            raise invalid(f"method.{key}", value, _allowed({least: 0}, "float") + choice)
    fallback = method.get("fallback", {})
    if (fallback or zeroth_order) and not (isinstance(fallback, Mapping) and {"lr", "eps"} <= set(fallback)):
        raise invalid("method.fallback", fallback, "an lr and an eps, for where they cannot be measured")
    if method.get("lr") == AUTO and method.get("lr_scale") is None:
        raise invalid("method.lr_scale", None, "a finite number > 0, since method.lr=auto is a multiple of it")


def _check_probe(cfg: DictConfig) -> None:
    if cfg.probe.directions < cfg.probe.inits:
        raise invalid("probe.directions", cfg.probe.directions, f"an integer >= {cfg.probe.inits}")
    if cfg.job != "probe":
        return
    if cfg.method.trains != "adapter":
        raise invalid("method", cfg.method.name, "a method that trains an adapter, for job=probe")
    if not queries_slopes(cfg):
        raise invalid("method", cfg.method.name, "a zeroth-order method, for job=probe")
    for key in ("eps", "lr") if cfg.probe.steps else ("eps",):
        if cfg.method[key] == AUTO:
            raise invalid(f"method.{key}", AUTO, "a number, for job=probe")
