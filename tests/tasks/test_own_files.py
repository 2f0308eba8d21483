"""A person's own data: CSV, plain text, and what is said of a file that is not as it should be."""

import hashlib

import pytest

from tests.cli.helpers import configure, write_rows
from zo_runner.config.instantiate import build
from zo_runner.errors import UserError
from zo_runner.tasks.base import Example
from zo_runner.tasks.files import local_files
from zo_runner.tasks.local_files import documents

HEADER = "text,label\n"
GOOD = f"{HEADER}It rains,0\n"


def write(folder, suffix, good, **files):
    """A folder with one file per split; those in `files` stand instead of good ones."""
    for name in ("train", "dev", "test"):
        content = files.get(name, good)
        (folder / f"{name}.{suffix}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def load(name, folder, **arguments):
    return build(configure(f"task={name}").task)(path=str(folder), **arguments).load(0)


# CSV


def csv(folder, train):
    return load("csv", write(folder, "csv", GOOD, train=train)).train


def test_a_csv_file_is_read_in_file_order_with_its_labels_as_text(tmp_path):
    train = csv(tmp_path, "label,text,note\n1,It shines,x\n0,It rains,y\n")
    words = ("terrible", "great")
    assert train == [Example("It shines It was", words, (1,)), Example("It rains It was", words, (0,))]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbf" + GOOD.encode(), "It rains"),
        (GOOD.replace("\n", "\r\n"), "It rains"),
        (f'{HEADER}"It rains, they say ""a lot""",0\n', 'It rains, they say "a lot"'),
        (f'{HEADER}"one\n\ntwo",0\n', "one\n\ntwo"),
        (f"{HEADER}\n\nIt rains,0\n\n", "It rains"),
        (f"{HEADER}Il pleut à verse,0", "Il pleut à verse"),
    ],
    ids=["byte order mark", "Windows", "quotes", "line breaks", "blank lines", "no last line break"],
)
def test_csv_as_programs_write_it(content, text, tmp_path):
    assert [example.prompt for example in csv(tmp_path, content)] == [f"{text} It was"]


@pytest.mark.parametrize("labels", [["neg", "pos"], ["1", "0"], [1, 0]], ids=str)
def test_labels_of_a_csv_file_are_given_as_they_stand_there(labels, tmp_path):
    rows = f"{HEADER}a,{labels[1]}\nb,{labels[0]}\n"
    train = load("csv", write(tmp_path, "csv", rows), labels=labels).train
    assert [example.correct for example in train] == [(1,), (0,)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"{HEADER}a,0\nb\n", "Invalid row at {file}:3: 1 cells. Must be 2, as the header."),
        (f"{HEADER}a,0\n\nb,c,0\n", "Invalid row at {file}:4: 3 cells. Must be 2, as the header."),
        (f'{HEADER}"a\nb",0\nc\n', "Invalid row at {file}:4: 1 cells. Must be 2, as the header."),
        (f"{HEADER}a,2\n", "Invalid label at {file}:2: '2'. Must be one of 0, 1."),
        (f"{HEADER}a,true\n", "Invalid label at {file}:2: 'true'. Must be one of 0, 1."),
        ("body,label\na,0\n", "Invalid row at {file}:2: no 'text'. Must have every field of task.template; it has: bo"),
        ("text;label\na;0\n", "Invalid row at {file}:2: no 'text'. Must have every field of task.template; it has: te"),
        ("text,text\na,0\n", "Invalid {file}:1: text, text. Must be a header of different names."),
        (f'{HEADER}a,0\n"b,0\n', "Invalid row at {file}:3: unexpected end of data. Must be comma-separated values."),
        (HEADER, "Invalid {file}: no rows. Must hold at least one row below the header."),
        ("", "Invalid {file}: no rows. Must hold at least one row below the header."),
        (b"text,label\ncaf\xe9,0\n", "Invalid {file}: 'utf-8' codec can't decode byte 0xe9 in position 14"),
    ],
)
def test_a_bad_csv_file_is_refused_by_file_and_line(content, told, tmp_path):
    with pytest.raises(UserError) as refusal:
        csv(tmp_path, content)
    assert str(refusal.value).startswith(told.replace("{file}", str(tmp_path / "train.csv")))


def test_a_csv_folder_lacks_a_file_by_name(tmp_path):
    write(tmp_path, "csv", GOOD)
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match=r"Must be a folder holding test\.csv\.$"):
        load("csv", tmp_path)
    with pytest.raises(
        UserError, match=r"^Invalid task\.path: None\. Must be a folder holding train\.csv, dev\.csv, t"
    ):
        build(configure("task=csv").task)()


def test_multiple_choice_and_generation_read_csv_too(tmp_path):
    write(tmp_path, "csv", "question,option1,option2,label,answer\nWhy?,So,Because,1,42\n")
    assert load("csv_choice", tmp_path).dev == [Example("Question: Why?\nAnswer:", ("So", "Because"), (1,), "Answer:")]
    assert load("csv_generation", tmp_path).dev == [
        Example("Question: Why?\nAnswer:", ("42\n",), answers=(("42",),)),
    ]


@pytest.mark.parametrize(("name", "suffix", "good"), [("csv", "csv", GOOD), ("text", "txt", "It rains.\n")])
def test_the_record_holds_the_sha256_of_every_file(name, suffix, good, tmp_path):
    write(tmp_path, suffix, good, dev=good + "\n")
    files = load(name, tmp_path).files
    assert files == {
        f"{part}.{suffix}": hashlib.sha256((tmp_path / f"{part}.{suffix}").read_bytes()).hexdigest()
        for part in ("train", "dev", "test")
    }
    read = local_files({"format": configure(f"task={name}").task.format, "path": str(tmp_path)})
    assert [file.name for file in read] == list(files)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_rows(tmp_path / "data")
    assert len(load("jsonl", "~/data").train) == 2


def test_a_task_without_files_has_none_to_identify_it():
    assert local_files({"format": "grammar", "path": "somewhere"}) == []
    assert local_files({"format": "jsonl", "path": None}) == []


# Plain text


def texts(part):
    return [example.options for example in part]


def test_a_document_is_a_text_to_learn_without_a_prompt(tmp_path):
    loaded = load("text", write(tmp_path, "txt", "One line\nand another.\n\n\n \n  Two.\n"))
    assert loaded.train == [Example("", ("One line\nand another.",)), Example("", ("  Two.",))]
    assert loaded.train == loaded.dev == loaded.test


def test_lines_are_documents_where_there_are_no_paragraphs():
    assert documents(["one\ntwo\n", "\nthree\n\n"]) == [[(1, "one"), (2, "two")], [(2, "three")]]
    assert documents(["one\ntwo\n", "\nthree\n\nfour"]) == [[(1, "one\ntwo")], [(2, "three"), (4, "four")]]


def test_a_folder_keeps_its_parts(tmp_path):
    loaded = load("text", write(tmp_path, "txt", "", train="a\n\nb", dev="c", test="d\n\ne"))
    assert [texts(part) for part in (loaded.train, loaded.dev, loaded.test)] == [
        [("a",), ("b",)],
        [("c",)],
        [("d",), ("e",)],
    ]


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_one_file_is_cut_by_position_at_the_borders_of_documents(gap, tmp_path):
    words = [f"document {i}" for i in range(10)]
    file = tmp_path / "all.txt"
    file.write_text(gap.join(words), encoding="utf-8")
    loaded = load("text", file)
    assert [texts(part) for part in (loaded.train, loaded.dev, loaded.test)] == [
        [(word,) for word in part] for part in (words[:8], words[8:9], words[9:])
    ]
    assert list(loaded.files) == ["all.txt"]
    assert local_files({"format": "text", "path": str(file)}) == [file]


def test_length_and_not_number_of_documents_decides_the_cut(tmp_path):
    file = tmp_path / "all.txt"
    file.write_text("\n\n".join(["x" * 70, "y" * 15, "z" * 5, "v" * 5, "w" * 5]), encoding="utf-8")
    loaded = load("text", file)
    assert [len(part) for part in (loaded.train, loaded.dev, loaded.test)] == [2, 1, 2]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"dev": " \n\n"}, "Invalid {data}/dev.txt: no text for dev. Must hold some."),
        ({"test": b"caf\xe9"}, "Invalid {data}/test.txt: 'utf-8' codec"),
    ],
)
def test_a_part_without_text_is_refused(files, told, tmp_path):
    with pytest.raises(UserError) as refusal:
        load("text", write(tmp_path, "txt", "a\n\nb\n", **files))
    assert str(refusal.value).startswith(told.replace("{data}", str(tmp_path)))


def test_one_file_must_be_long_enough_to_cut(tmp_path):
    file = tmp_path / "all.txt"
    file.write_text("one paragraph\n\nand a very long last one, in which all the rest stands", encoding="utf-8")
    with pytest.raises(UserError, match=rf"^Invalid {file}: no text for dev\. Must hold enough paragraphs, or lines"):
        load("text", file)
    with pytest.raises(UserError, match=r"Must be a folder holding train\.txt\.$"):
        load("text", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^Invalid task\.path: None\. Must be a text file, or a folder holding train"):
        build(configure("task=text").task)()
