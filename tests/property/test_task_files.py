"""A person's own data files, broken: what is read loses and invents no row, everything else is refused by file."""

import csv
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.helpers import configure
from tests.property.broken import VALUES, accepted, altered, as_json, cases, spoiled
from zo_runner.config.instantiate import build
from zo_runner.models.base_model import load_base
from zo_runner.models.encoding import Encoder
from zo_runner.tasks.base import Example
from zo_runner.tasks.files import SPLITS

ROWS = {
    "jsonl": [{"text": "It rains.", "label": 0}, {"text": "The soup was tasty, they say.", "label": 1}],
    "jsonl_choice": [
        {"question": "Why?", "options": ["So.", "Because it rains"], "label": 1},
        {"question": "Who?", "options": ["I", "you", "they"], "label": [0, 2]},
    ],
    "jsonl_generation": [
        {"question": "How many?", "answers": "42"},
        {"question": "Where?", "answers": ["in Rome", "Rome"]},
        {"question": "Which?", "answers": [["one", "two"], ["both"]]},
    ],
}
WHOLE = {group: b"".join(map(as_json, rows)) for group, rows in ROWS.items()} | {
    "csv": b'text,label\nIt rains.,0\n"Soup, they say ""good""\nand hot",1\n',
    "csv_choice": b"question,option1,option2,label\nWhy?,So,Because,1\nWho?,I,you,0\n",
    "csv_generation": b"question,answer\nHow many?,42\nWhere?,in Rome\n",
    "text": "One line\nand another.\n\nTwo.\n\n\n  Three, é.\n\nfour\n\nfive\n".encode(),
}

pytestmark = pytest.mark.filterwarnings("ignore")  # of texts that are cut, for one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def base():
    return load_base("pocket_opt", embedded=True, device=torch.device("cpu"), dtype="float32")


def read(group, path, base, *names):
    """Load and encode the files of a task: the examples of each split, or None where they are refused."""
    found = []

    def load():
        task = build(configure(f"task={group}").task)(path=str(path))
        splits = task.load(0)
        encoder = Encoder(base.tokenizer, task.scoring, base.context, base.first_token)
        for name in SPLITS:
            for encoded in encoder.encode(getattr(splits, name), name):
                assert encoded.prefix
                assert all(encoded.options)
        found.extend(getattr(splits, name) for name in SPLITS)

    return found if accepted(load, *names) else None


def write(folder, group, train, other):
    for name in SPLITS:
        suffix = "txt" if group == "text" else group.partition("_")[0]
        (folder / f"{name}.{suffix}").write_bytes(train if name == "train" else other)


@pytest.mark.parametrize("group", WHOLE)
@cases
@given(data=st.data())
def test_examples_of_a_broken_file_are_plausible_or_it_is_refused(group, data, folder, base):
    contents = spoiled(WHOLE[group])
    if group in ROWS:
        contents |= altered(ROWS[group]).map(
            lambda rows: b"".join(map(as_json, rows if isinstance(rows, list) else [rows]))
        )
    content = data.draw(contents)
    write(folder, group, content, WHOLE[group])
    # Elsewhere the refusal may be of an option that has no token, or of a split.
    names = [f"train.{group}"] if group in ("jsonl", "csv") else []
    if (splits := read(group, folder, base, *names)) is None:
        return
    examples = splits[0]
    assert examples
    for example in examples:
        "".join((example.prompt, *example.options)).encode()  # what cannot be encoded cannot be tokenized
        assert all(0 <= index < len(example.options) for index in example.correct)
        assert all(option.strip() for option in example.options)
    if group in ROWS:
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert len(examples) == sum(bool(line.strip()) for line in lines)
    if group == "text":
        require_every_character(content, [examples])


def require_every_character(content, splits):
    """Check that every character of a text but its white space stands in a document, in order, once."""
    documents = "".join(example.options[0] for split in splits for example in split)
    assert "".join(documents.split()) == "".join(content.decode("utf-8-sig").split())


@cases
@given(content=spoiled(WHOLE["text"]))
def test_one_broken_text_is_divided_into_splits_or_refused(content, folder, base):
    (folder / "all.txt").write_bytes(content)
    if (splits := read("text", folder / "all.txt", base, "all.txt")) is not None:
        require_every_character(content, splits)


@cases
@given(rows=st.lists(st.tuples(VALUES, st.integers(-1, 2) | VALUES), min_size=1, max_size=3))
def test_a_row_of_json_is_the_expected_example_or_refused_by_its_line(rows, folder, base):
    def fits(text, label):
        written = not isinstance(text, dict | list | None) and not (isinstance(text, float) and text - text != 0)
        valid = not any("\ud800" <= c <= "\udfff" for c in str(text))
        return written and valid and type(label) is int and label in (0, 1)

    write(folder, "jsonl", *[b"".join(as_json({"text": text, "label": label}) for text, label in rows)] * 2)
    bad = [number for number, row in enumerate(rows, 1) if not fits(*row)]
    splits = read("jsonl", folder, base, "train.jsonl:")
    require_expected(splits, None if bad else rows)


def require_expected(splits, rows):
    """Check that rows of a text and a label are what was read, None that it was refused."""
    words = ("terrible", "great")
    expected = rows and [Example(f"{str(text).strip()} It was", words, (int(label),)) for text, label in rows]
    assert splits == (rows and [expected] * 3)


cells = st.text(st.characters(codec="utf-8") | st.sampled_from('",\n\r;\t '), max_size=9)


@cases
@given(
    rows=st.lists(st.tuples(cells, st.sampled_from("0111") | cells, cells), min_size=1, max_size=4),
    cut=st.sampled_from([3, 3, 3, 3, 2, 1]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_row_of_csv_is_the_expected_example_or_refused(rows, cut, end, folder, base):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
        [("text", "label", "more"), *rows[:-1], rows[-1][:cut]]
    )
    write(folder, "csv", *[text.getvalue().encode()] * 2)
    plain = [(text.replace("\r\n", "\n").replace("\r", "\n"), label) for text, label, _ in rows]
    fits = cut == 3 and all(label in ("0", "1") for _, label in plain)
    require_expected(read("csv", folder, base, "train.csv:"), plain if fits else None)
