"""What every kind of fuzzing shares: what a kind is, how a refusal must look, and ways to spoil bytes and JSON."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from zo_runner.errors import Fault, UserError
from zo_runner.jobs.console import printable

# Characters of the longest line that a person is shown.
LONGEST = 2_000


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: as the table has it.
        cases: what is given.
        check: gives it; True where it was accepted, False where it was refused in one line. Whatever it raises is a
            bug: of the reader, or a result that is not the right one.
        share: how many of its cases there are for one case of a kind of share 1.
    """

    name: str
    cases: SearchStrategy[Any]
    check: Callable[[Any], bool]
    share: float = 1.0


def accepted(call: Callable[[], object], *names: str) -> bool:
    """Whether `call` returns. Where it refuses, the line that a person would see must be one, and hold `names`."""
    try:
        call()
    except (UserError, Fault) as error:
        told(str(error), *names)
        return False
    return True


def told(text: str, *names: str) -> None:
    """Check the line that a person would see."""
    line = printable(text)
    assert line.strip(), "a refusal without a word"
    assert len(line.splitlines()) == 1, f"a refusal of several lines: {line!r}"
    assert len(line) <= LONGEST, f"a refusal of {len(line)} characters: {line[:200]!r}..."
    for name in names:
        assert name in line, f"a refusal that does not name {name!r}: {line!r}"


# Bytes

_CHUNKS = [
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"\x1b[2J", b"\x85", b"\x0c"),
    *(b"\r", b"\r\n", b"\n", b"\n\n", b" ", b"\t", b'"', b"'", b",", b";", b":", b"{", b"}", b"[", b"]", b"#", b"&a"),
    *(
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"9" * 5_000,
        b"\\ud800",
        b"\\u0000",
        "\u2028é\U0001f600".encode(),
    ),
    *(
        b"[" * 1_200,
        b'{"a":' * 1_200,
        b"[" * 400 + b"]" * 400,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"a" * 200_000,
        b"!!python/object/apply:os.getcwd []",
        b"${seed}",
        b"*a",
        b"|\n",
    ),
]


@st.composite
def spoiled(draw: DrawFn, whole: bytes) -> bytes:
    """A file's bytes, changed in one to three places, cut, or replaced."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "flip", "insert", "remove", "repeat", "lines", "replace"))):
            case "cut":
                data = data[:at]
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case "insert":
                data = data[:at] + draw(st.sampled_from(_CHUNKS) | st.binary(max_size=9)) + data[at:]
            case "remove":
                data = data[:at] + data[at + draw(st.integers(1, 40)) :]
            case "repeat":
                data = data[:at] + data[at : at + 60] + data[at:]
            case "lines":
                data = b"\n".join(draw(st.permutations(data.split(b"\n")[:30])))
            case "replace":
                data = draw(st.just(b"") | st.sampled_from(_CHUNKS) | st.binary(max_size=60))
    return data


@st.composite
def flipped(draw: DrawFn, whole: bytes) -> bytes:
    """A file's bytes with one to three bits the other way round."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


# JSON

NAMES = st.sampled_from(["", "a", "nan", "inf", "text", "label", "\n", "\x1b[2J", "\ud800", "é", "0"])
TEXTS = NAMES | st.text(st.characters(exclude_categories=()), max_size=8)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 7, 10**30, -(10**400), 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf]),
    st.integers(-3, 70),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=3), st.just([[]]))


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value, the value itself left out."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from places(item, (*above, key))


@st.composite
def altered(draw: DrawFn, whole: Any) -> Any:
    """A JSON value with one or two things inside of it replaced, removed, renamed or added."""
    changed = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        known = list(places(changed))
        if not known or draw(st.integers(0, 40)) == 0:
            return draw(VALUES)
        *above, last = draw(st.sampled_from(known))
        node = changed
        for key in above:
            node = node[key]
        how = draw(st.sampled_from(("replace", "replace", "remove", "rename", "as text")))
        if how == "replace":
            node[last] = draw(VALUES)
        elif how == "as text":
            node[last] = str(node[last])
        elif how == "remove" or isinstance(node, list):
            del node[last]
        else:
            node[draw(NAMES)] = node.pop(last)
    return changed


def dumped(value: Any) -> str:
    """As JSON, which may hold NaN, as a careless program writes it; surrogates as escapes."""
    return json.dumps(value)
