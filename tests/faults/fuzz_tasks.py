"""A person's own data files, broken: JSON lines, CSV and plain text, from the bytes to the token ids.

Two ways to break each: the bytes of good files, spoiled, of which little can be said but that nothing gets lost; and
rows in which some values are not what a task takes, of which it is known what every one of them must come to.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.faults.fuzz_config import configuration
from tests.faults.fuzz_kinds import SCALARS, TEXTS, VALUES, Kind, accepted, dumped, spoiled
from zo_runner.config.instantiate import build
from zo_runner.models.base_model import Base, load_base
from zo_runner.models.encoding import Encoder
from zo_runner.tasks.base import Example, Splits, Task
from zo_runner.tasks.files import SPLITS

# What a row must come to; None where it must be refused.
Expected = Callable[[dict[str, Any]], Example | None]

_GOOD: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": "It rains.", "label": 0}, {"text": "The soup was tasty, they say.", "label": 1}],
    "choice": [
        {"question": "Why?", "options": ["So.", "Because it rains"], "label": 1},
        {"question": "Who?", "options": ["I", "you", "they"], "label": [0, 2]},
    ],
    "generation": [
        {"question": "How many?", "answers": "42"},
        {"question": "Where?", "answers": ["in Rome", "Rome"]},
        {"question": "Which?", "answers": [["one", "two"], ["both"]]},
    ],
}
_GOOD_CSV = {
    "classification": 'text,label\nIt rains.,0\n"Soup, they say ""good""\nand hot",1\n',
    "choice": "question,option1,option2,label\nWhy?,So,Because,1\nWho?,I,you,0\n",
    "generation": "question,answer\nHow many?,42\nWhere?,in Rome\n",
}
_GROUPS = {
    "jsonl": {"classification": "jsonl", "choice": "jsonl_choice", "generation": "jsonl_generation"},
    "csv": {"classification": "csv", "choice": "csv_choice", "generation": "csv_generation"},
}
_TEXT = "One line\nand another.\n\nTwo.\n\n\n  Three, é.\n\nfour\n\nfive\n"
_WORDS = ("terrible", "great")


def kinds(folder: Path) -> Iterator[Kind]:
    """Every format, every family of tasks.

    Args:
        folder: where the files are written.
    """
    folder.mkdir()
    for family, good in _GOOD.items():
        lines = "".join(dumped(row) + "\n" for row in good).encode()
        expected = _EXPECTED[family]
        check = partial(_bytes, _task(_GROUPS["jsonl"][family], folder), folder, "jsonl", _count_lines, lines)
        yield Kind(f"jsonl, {family}, bytes", spoiled(lines), check)
        check = partial(_rows, _task(_GROUPS["jsonl"][family], folder), folder, expected)
        yield Kind(f"jsonl, {family}, rows", st.lists(_row(good), min_size=1, max_size=4), check)
    for family, text in _GOOD_CSV.items():
        check = partial(_bytes, _task(_GROUPS["csv"][family], folder), folder, "csv", None, text.encode())
        yield Kind(f"csv, {family}, bytes", spoiled(text.encode()), check)
    check = partial(_table, _task("csv", folder), folder)
    yield Kind("csv, classification, cells", _tables(), check)
    check = partial(_bytes, _task("text", folder), folder, "txt", None, _TEXT.encode())
    yield Kind("text, a folder", spoiled(_TEXT.encode()), check)
    yield Kind("text, one file", spoiled(_TEXT.encode()), partial(_one_text, folder))


def _task(group: str, folder: Path) -> Task:
    return build(configuration(f"task={group}").task)(path=str(folder))  # type: ignore[no-any-return]


@cache
def _base() -> Base:
    return load_base("pocket_opt", embedded=True, device=torch.device("cpu"), dtype="float32")


def _read(task: Task) -> Splits:
    """Everything that is done with files before a run begins."""
    splits, base = task.load(0), _base()
    encoder = Encoder(base.tokenizer, task.scoring, base.context, base.first_token)
    for name in SPLITS:
        for encoded in encoder.encode(getattr(splits, name), name):
            assert encoded.prefix
            assert all(encoded.options)
    return splits


# Bytes


def _bytes(
    task: Task, folder: Path, suffix: str, count: Callable[[bytes], int] | None, good: bytes, case: bytes
) -> bool:
    for name in SPLITS:
        (folder / f"{name}.{suffix}").write_bytes(case if name == "train" else good)
    found: list[Splits] = []
    names = () if suffix == "txt" else (f"train.{suffix}",)
    read = accepted(lambda: found.append(_read(task)), *(() if _is_about_tokens(task) else names))
    if found:
        _plausible(found[0].train)
        assert count is None or len(found[0].train) == count(case), "rows were lost or made up"
        if suffix == "txt":
            _whole(case, found[0].train)
    return read


def _is_about_tokens(task: Task) -> bool:
    """Whether options come from the files, so that what is refused may be what they are to the tokenizer."""
    return task.scoring.loss == "answer"


def _count_lines(data: bytes) -> int:
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return sum(bool(line.strip()) for line in text.split("\n"))


def _plausible(examples: Sequence[Example]) -> None:
    assert examples
    for example in examples:
        "".join((example.prompt, *example.options)).encode()  # what cannot be encoded cannot be tokenized
        assert all(0 <= index < len(example.options) for index in example.correct)
        assert all(text.strip() for text in example.options)


def _whole(data: bytes, *parts: Sequence[Example]) -> None:
    """Every character of a text but its white space stands in a document, in order, once."""
    text = data.decode("utf-8-sig")
    read = "".join(example.options[0] for part in parts for example in part)
    assert "".join(read.split()) == "".join(text.split())


def _one_text(folder: Path, case: bytes) -> bool:
    file = folder / "all.txt"
    file.write_bytes(case)
    task = build(configuration("task=text").task)(path=str(file))
    found: list[Splits] = []
    read = accepted(lambda: found.append(_read(task)), str(file))
    if found:
        _whole(case, *(getattr(found[0], name) for name in SPLITS))
    return read


# Rows of which it is known what they come to


@st.composite
def _row(draw: DrawFn, good: list[dict[str, Any]]) -> dict[str, Any]:
    """A good row, three times in four; else one in which a value is anything, or a key missing."""
    row = dict(draw(st.sampled_from(good)))
    if draw(st.integers(0, 3)):
        return row
    key = draw(st.sampled_from(sorted(row)))
    match draw(st.sampled_from(("value", "value", "other", "remove", "more"))):
        case "value":
            row[key] = draw(VALUES)
        case "other":  # of the right kind, at least
            row[key] = draw(st.lists(TEXTS, max_size=3) | st.integers(-1, 3) | TEXTS | st.lists(st.integers(-1, 3)))
        case "remove":
            del row[key]
        case "more":
            row[draw(TEXTS)] = draw(SCALARS)
    return row


def _rows(task: Task, folder: Path, expected: Expected, case: list[dict[str, Any]]) -> bool:
    data = "".join(dumped(row) + "\n" for row in case)
    for name in SPLITS:
        (folder / f"{name}.jsonl").write_text(data, encoding="utf-8")
    wanted = [None if _unfit(row) else expected(row) for row in case]
    # A file is read as a whole before its rows become examples.
    bad = [line for line, row in enumerate(case, 1) if _unfit(row)]
    bad += [line for line, example in enumerate(wanted, 1) if example is None]
    if bad:
        assert not accepted(lambda: task.load(0), f"train.jsonl:{bad[0]}"), f"line {bad[0]} was accepted"
        return False
    splits = task.load(0)
    assert splits.train == splits.dev == splits.test == wanted, "read as something else"
    return accepted(lambda: _read(task))


def _unfit(value: Any) -> bool:
    """Whether JSON or UTF-8 has no such value."""
    if isinstance(value, dict):
        return any(map(_unfit, (*value, *value.values())))
    if isinstance(value, list):
        return any(map(_unfit, value))
    if isinstance(value, float):
        return value - value != 0  # infinite, or not a number
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: Any) -> bool:
    return type(value) is int


def _filled(template: str, row: dict[str, Any], field: str) -> str | None:
    value = row.get(field)
    return None if value is None or isinstance(value, dict | list) else template.format(str(value).strip())


def _classified(row: dict[str, Any]) -> Example | None:
    prompt, label = _filled("{} It was", row, "text"), row.get("label")
    if prompt is None or not _is_number(label) or label not in (0, 1):
        return None
    return Example(prompt, _WORDS, (label,))


def _chosen(row: dict[str, Any]) -> Example | None:
    prompt, texts, label = _filled("Question: {}\nAnswer:", row, "question"), row.get("options"), row.get("label")
    if prompt is None or not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        return None
    stripped = [text.strip() for text in texts]
    options = list(dict.fromkeys(stripped))
    if len(options) < 2:
        return None
    numbers = []
    for value in label if isinstance(label, list) else [label]:
        digits = isinstance(value, str) and value.isascii() and value.isdigit()
        if not (_is_number(value) or digits) or not 0 <= int(value) < len(texts):
            return None
        numbers.append(options.index(stripped[int(value)]))
    return Example(prompt, tuple(options), tuple(dict.fromkeys(numbers)), "Answer:") if numbers else None


def _answered(row: dict[str, Any]) -> Example | None:
    prompt, value = _filled("Question: {}\nAnswer:", row, "question"), row.get("answers")
    golds = []
    for gold in value if isinstance(value, list) else [value]:
        spans = gold if isinstance(gold, list) else [gold]
        if not spans or not all(isinstance(s, str) or type(s) in (int, float) for s in spans):
            return None
        golds.append(tuple(str(span).strip() for span in spans))
        if not all(golds[-1]):
            return None
    if prompt is None or not golds:
        return None
    return Example(prompt, (", ".join(golds[0]) + "\n",), answers=tuple(dict.fromkeys(golds)))


_EXPECTED: dict[str, Expected] = {"classification": _classified, "choice": _chosen, "generation": _answered}


# Cells of CSV files


@st.composite
def _tables(draw: DrawFn) -> tuple[list[list[str]], str, bool]:
    """Rows of cells, a header first, and how they are written: the line break, whether every cell has quotes."""
    cells = st.text(st.characters(codec="utf-8") | st.sampled_from('",\n\r;\t '), max_size=9)
    header = draw(st.permutations(["text", "label", *draw(st.lists(cells, max_size=1))]))
    rows: list[list[str]] = [list(header)]
    for _ in range(draw(st.integers(1, 4))):
        row = [draw(cells), draw(st.sampled_from("0111") | cells), *(draw(cells) for _ in header[2:])]
        named = dict(zip(["text", "label", *(n for n in header if n not in ("text", "label"))], row, strict=False))
        rows.append([named.get(name, "") for name in header][: draw(st.sampled_from([9] * 9 + [1]))])
    # Of a line break that stands alone Python's writer does not see that it needs quotes.
    quoted = draw(st.booleans()) or any("\r" in cell for row in rows for cell in row)
    return rows, draw(st.sampled_from(["\n", "\r\n"])), quoted


def _table(task: Task, folder: Path, case: tuple[list[list[str]], str, bool]) -> bool:
    (header, *rows), end, quoted = case
    text = io.StringIO(newline="")
    style = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=end, quoting=style).writerows([header, *rows])
    for name in SPLITS:
        (folder / f"{name}.csv").write_bytes(text.getvalue().encode())
    wanted: list[Example | None] = []
    for row in rows:
        named = dict(zip(header, (cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row), strict=False))
        fits = len(row) == len(header) and named["label"] in ("0", "1")
        wanted.append(Example(f"{named['text'].strip()} It was", _WORDS, (int(named["label"]),)) if fits else None)
    if None in wanted or len(set(header)) < len(header):
        assert not accepted(lambda: task.load(0), "train.csv:"), "a bad row was accepted"
        return False
    splits = task.load(0)
    assert splits.train == splits.dev == splits.test == wanted, "read as something else"
    return accepted(lambda: _read(task))
