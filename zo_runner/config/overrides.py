"""Overrides in the words of Hydra's command line. No torch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Texts that mean themselves without quotes: not a number, not one of Hydra's own words.
_BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z][A-Za-z0-9_./-]*", re.IGNORECASE | re.ASCII)


class Raw(str):
    """A value in the words of the command line, which needs no quoting."""

    __slots__ = ()


def word(key: str, value: Any) -> str:
    """An override as Hydra reads it."""
    return f"{key}={_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Hydra's quotes: a quote inside takes a backslash, and backslashes before a quote are doubled."""
    if _BARE.fullmatch(text):
        return text
    inside = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inside) + "'"
