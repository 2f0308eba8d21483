"""What zo-run says to a person: results on standard output, everything else on standard error."""

import sys
import warnings
from typing import Any

from zo_runner.errors import RunWarning

# Of a message that is longer than two of these, so many characters at its beginning and at its end are shown.
_ENDS = 600


def say(text: str) -> None:
    """A result."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A warning or an error, in one line."""
    print(f"zo-run: {printable(text)}", file=sys.stderr, flush=True)


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
