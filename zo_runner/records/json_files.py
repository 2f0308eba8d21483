"""JSON files that can hold any float: infinities and NaN stand as the strings "inf", "-inf" and "nan". No torch."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zo_runner.errors import UserError

_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """`value` with non-finite floats as strings, ready for strict JSON."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def read_object(file: Path) -> dict[str, Any] | None:
    """The object in a file, not decoded; None if the file is missing, broken or holds another kind of value."""
    try:
        value = json.loads(_text(file))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The decoded rows of a file of JSON lines.

    Raises:
        OSError: there is no such file.
        UserError: a line that is no object, by its number.
    """
    try:
        text = _text(file)
    except UnicodeDecodeError as error:
        raise UserError(f"Invalid {file}: {error}. Must be one JSON object per line.") from None
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            row = decode(json.loads(line))
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"Invalid {file}:{number}: {line[:80]!r}. Must be one JSON object.")
        yield row


def checksum(plain: dict[str, Any]) -> str:
    """Sixteen digits of the SHA-256 of an encoded object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _text(file: Path) -> str:
    """The text of a regular file. A pipe or a device, which might be read for ever, counts as missing."""
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return file.read_text(encoding="utf-8")
