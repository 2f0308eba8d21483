"""Methods, usable in anybody's training loop: no Hydra, no PEFT, no transformers.

`from zo_runner.methods import MeZO` finds every class of the modules here; none is listed, none is imported before.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def __getattr__(name: str) -> Any:
    """The class of that name."""
    if name[:1].isupper():
        for module in iter_modules(__path__, f"{__name__}."):
            found = getattr(import_module(module.name), name, None)
            if getattr(found, "__module__", None) == module.name:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
