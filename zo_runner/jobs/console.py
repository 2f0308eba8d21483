"""Terminal output: results on standard output, everything else on standard error."""

import re
import sys
import traceback
import warnings
from typing import Any

from zo_runner.config.credentials import redacted
from zo_runner.errors import RunWarning

# Of a message that is longer than two of these, so many characters at its beginning and at its end are shown.
_ENDS = 600

# Escape sequences would change the terminal: names, errors and paths come from files that anybody may have written.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """A result."""
    print(_plain(text), flush=True)


def complain(text: str) -> None:
    """A warning or an error, in one line."""
    print(f"zo-run: {printable(redacted(text))}", file=sys.stderr, flush=True)


def trace() -> None:
    """The traceback of the error that is being handled."""
    print(_plain(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redacted(text))


def printable(text: str) -> str:
    """One line that a terminal shows as it is: what a message quotes may be of any length and hold any character."""
    if len(text) > 2 * _ENDS:
        text = f"{text[:_ENDS]} … {text[-_ENDS:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quiet() -> None:
    """Show our own warnings, one line each, and nobody else's."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RunWarning)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RunWarning):
        complain(f"warning: {message}")
