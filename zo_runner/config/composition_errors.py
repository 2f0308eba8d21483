"""Errors of Hydra and OmegaConf as one line in the form of ours: key, value, what is allowed."""

import re
import traceback

from hydra.errors import OverrideParseException

from zo_runner.errors import invalid

_KINDS = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}


def in_composition(error: BaseException) -> bool:
    """True if Hydra raised it while it composed: then it is about what was typed, whatever its type."""
    return "compose_config" in {frame.name for frame in traceback.extract_tb(error.__traceback__)}


def one_line(error: BaseException) -> str:
    """The error's message on one line; key, value and what is allowed where they can be found in it."""
    text = f"{error}\n{error.__cause__ or ''}"
    key = re.search(r"full_key: (\S+)", text)
    value = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text)
    if key and value:
        return str(invalid(key[1], value[1], _KINDS.get(value[2], value[2])))
    option = re.search(r"Could not find '([\w/]+)/([^']*)'", text)
    available = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", text)
    if option and available:
        return str(invalid(option[1], option[2], "one of " + ", ".join(available[1].split())))
    unknown = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", text)
    if unknown:
        return f"Unknown key {unknown[1]!r}. zo-run --help lists the keys, zo-run --cfg job shows them all."
    if isinstance(error, OverrideParseException):
        return (
            f"Cannot read {error.override!r}. A value with spaces, braces or commas needs quotes of its own inside the "
            """shell's, as in 'task.template="{text} It was"'."""
        )
    return " ".join(str(error).split())
