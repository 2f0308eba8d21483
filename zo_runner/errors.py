"""The errors that a person using zo-run can cause or must be told about."""

import errno
import re
from collections.abc import Iterable

# What CUDA and its libraries, torch's allocators, safetensors and the operating system call it.
_SHORT = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


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


def is_shortage(error: BaseException) -> bool:
    """True if an exception reports that memory ran out, of this machine or of an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, OSError | RuntimeError) and bool(_SHORT.search(str(error)))
