"""From a node of the configuration to the method or task that it names. No torch until one is built."""

import re
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.config.schema import MethodConfig
from zo_runner.errors import invalid

# The classes that `_target_` may name, by package: subclasses of this one, defined in a module of the package.
BUILDABLE = {
    "zo_runner.methods": ("zo_runner.methods.base", "Method"),
    "zo_runner.tasks": ("zo_runner.tasks.family", "Family"),
}
_TARGET = re.compile(r"(zo_runner\.(?:methods|tasks))((?:\.[a-z][a-z0-9_]*)?)\.([A-Za-z][A-Za-z0-9]*)")
_INSTRUCTION = re.compile(r"_[a-z]+_")

# Keys of a method or task node that are not arguments of its constructor.
DESCRIPTION = frozenset(known.name for known in fields(MethodConfig))


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
