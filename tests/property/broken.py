"""Ways to break bytes, JSON values and files, and the form that every refusal must have."""

import copy
import json
import math
import os
import shutil

from hypothesis import settings
from hypothesis import strategies as st

from zo_runner.errors import Fault, UserError
from zo_runner.jobs.console import printable

# Five examples by default, 600 a night.
cases = settings(max_examples=max(settings.default.max_examples // 20, 1))

# Characters of the longest line that a person is shown.
LONGEST = 2_000


def accepted(call, *names):
    """True if `call` returns, False if it refuses in one line that holds `names`; other exceptions pass through."""
    try:
        call()
    except (UserError, Fault) as error:
        line = printable(str(error))
        assert len(line.strip().splitlines()) == 1, line
        assert len(line) <= LONGEST, line
        assert all(name in line for name in names), f"names not all of {names}: {line}"
        return False
    return True


def command_accepted(ended):
    """True if a call of zo-run succeeded, False if it failed with exit code 1 and lines of its own, no traceback."""
    lines = ended.err.splitlines()
    assert all(line.startswith("zo-run: ") and len(line) <= LONGEST for line in lines), ended.err
    assert ended.code in (0, 1), ended
    assert ended.code == 0 or any(not line.startswith("zo-run: warning: ") for line in lines), ended
    return ended.code == 0


CHUNKS = [
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"\x1b[2J", b"\x85", b"\x0c", b"\r"),
    *(b"\r\n", b"\n", b"\n\n", b" ", b"\t", b'"', b"'", b",", b";", b":", b"{", b"}", b"[", b"]", b"#", b"&a", b"*a"),
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 5_000, b"\\ud800", b"\\u0000", b"${seed}", b"|\n"),
    *("\u2028é\U0001f600".encode(), b"!!python/object/apply:os.getcwd []", b"a" * 20_000),
    *(b"[" * 1_200, b'{"a":' * 1_200, b"[" * 400 + b"]" * 400, b'{"a":' * 900 + b"1" + b"}" * 900),
]


@st.composite
def spoiled(draw, whole):
    """A file's bytes, changed in one to three places, cut, or replaced."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        before, after = data[:at], data[at:]
        match draw(st.sampled_from(("cut", "flip", "flip", "insert", "remove", "repeat", "lines", "replace"))):
            case "cut":
                data = before
            case "flip" if after:
                data = before + bytes([after[0] ^ 1 << draw(st.integers(0, 7))]) + after[1:]
            case "insert":
                data = before + draw(st.sampled_from(CHUNKS) | st.binary(max_size=9)) + after
            case "remove":
                data = before + after[draw(st.integers(1, 40)) :]
            case "repeat":
                data = before + after[:60] + after
            case "lines":
                data = b"\n".join(draw(st.permutations(data.split(b"\n")[:30])))
            case "replace":
                data = draw(st.just(b"") | st.sampled_from(CHUNKS) | st.binary(max_size=60))
    return data


# JSON values, with the NaN and the lone surrogates that careless programs write.
NAMES = st.sampled_from(["", "a", "nan", "inf", "text", "label", "\n", "\x1b[2J", "\ud800", "é", "0"])
TEXTS = NAMES | st.text(st.characters(exclude_categories=()), max_size=8)
ODD_NUMBERS = [0, 1, -1, 2, 7, 10**30, -(10**400), 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf]
NUMBERS = st.sampled_from(ODD_NUMBERS) | st.integers(-3, 70) | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS, max_size=3) | st.just([[]])


def as_json(value):
    """One line of JSON, in bytes."""
    return f"{json.dumps(value)}\n".encode()


def _places(node):
    """Every (list or object, key) inside of a JSON value."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    return [(node, key) for key, _ in items] + [place for _, child in items for place in _places(child)]


@st.composite
def altered(draw, whole):
    """A JSON value with one or two values inside of it replaced, removed, renamed or turned to text."""
    changed = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        places = _places(changed)
        if not places or draw(st.integers(0, 40)) == 0:
            return draw(VALUES)
        node, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "replace", "remove", "rename", "as text"))):
            case "replace":
                node[key] = draw(VALUES)
            case "as text":
                node[key] = str(node[key])
            case "rename" if isinstance(node, dict):
                node[draw(NAMES)] = node.pop(key)
            case _:
                del node[key]
    return changed


# Anything but text in the place of a file.
NO_FILES = st.sampled_from(["missing", "empty", "folder", "pipe", "loop", "endless", "dangling"])


def put(file, content):
    """Put bytes, or one of NO_FILES, in the place of a file or a folder."""
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    match content:
        case bytes():
            file.write_bytes(content)
        case "empty":
            file.touch()
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "loop" | "endless" | "dangling":
            file.symlink_to({"loop": file, "endless": "/dev/zero", "dangling": file.parent / "nowhere"}[content])
