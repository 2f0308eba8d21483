"""What zo-run says to a person: results on standard output, everything else on standard error."""

import sys
import warnings
from typing import Any

from zo_runner.errors import RunWarning


def say(text: str) -> None:
    """A result."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A warning or an error."""
    print(f"zo-run: {text}", file=sys.stderr, flush=True)


def quiet() -> None:
    """Show our own warnings, one line each, and nobody else's."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RunWarning)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RunWarning):
        complain(f"warning: {message}")
