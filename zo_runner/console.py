"""What zo-run says to a person: results on standard output, everything else on standard error."""

import re
import sys
import traceback
import warnings
from typing import Any

from zo_runner.credentials import redacted
from zo_runner.errors import RunWarning

# Escape sequences would change the terminal: names, errors and paths come from files that anybody may have written.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """A result."""
    print(_plain(text), flush=True)


def complain(text: str) -> None:
    """A warning or an error."""
    print(f"zo-run: {_plain(text)}", file=sys.stderr, flush=True)


def trace() -> None:
    """The traceback of the error that is being handled."""
    print(_plain(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redacted(text))


def quiet() -> None:
    """Show our own warnings, one line each, and nobody else's."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RunWarning)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RunWarning):
        complain(f"warning: {message}")
