"""The errors that a person using zo-run can cause or must be told about."""

from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. Shown as one line, exit code 1, never a traceback."""


class Fault(RuntimeError):
    """Something outside a run ended it. Shown as one line, exit code 1; the same command goes on once it is mended."""


class Diverged(ArithmeticError):
    """The loss is no longer a finite number. The run stops and keeps everything up to here."""


def invalid(name: str, value: object, allowed: str) -> UserError:
    """The one form in which bad input is reported.

    Args:
        name: the key as a person types it, such as `method.eps`.
        value: what was given.
        allowed: what would have been right; completes the sentence "Must be ...".
    """
    return UserError(f"Invalid {name}: {value!r}. Must be {allowed}.")


def one_of(options: Iterable[object]) -> str:
    """`one of a, b, c`, sorted, to complete "Must be ..."."""
    return "one of " + ", ".join(sorted(str(option) for option in options))


class RunWarning(UserWarning):
    """Something a person should know about a run. Shown as one line."""
