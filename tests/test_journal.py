"""The journal: whole lines that hang together, or a name for what is wrong."""

import json
import math
from contextlib import closing

import pytest

from zo_runner.errors import Fault
from zo_runner.records.journal import Journal, read

ROWS = [{"step": step, "slopes": [0.1 * step, -1e-300], "lr": 1 / 3, "loss": math.inf} for step in range(5)]


@pytest.fixture
def file(tmp_path):
    written = Journal(tmp_path / "journal.jsonl", "abc")
    for row in ROWS:
        written.append(row)
    written.close()
    return tmp_path / "journal.jsonl"


def test_numbers_come_back_as_they_were(file):
    assert [line.row for line in read(file, "abc")] == ROWS
    assert list(read(file, "abc"))[-1].end == file.stat().st_size


def test_every_line_is_strict_json(file):
    for text in file.read_text(encoding="utf-8").splitlines():
        json.loads(text, parse_constant=pytest.fail)


def test_a_line_is_in_the_file_before_the_next_step(tmp_path):
    with closing(Journal(tmp_path / "journal.jsonl", "abc")) as journal:
        for count, row in enumerate(ROWS, start=1):
            journal.append(row)
            assert len(list(read(tmp_path / "journal.jsonl", "abc"))) == count


def test_every_cut_costs_the_last_line_and_no_other(file):
    whole = file.read_bytes()
    ends = [0, *(line.end for line in read(file, "abc"))]
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert len(list(read(file, "abc"))) == sum(end <= cut for end in ends) - 1


def test_every_changed_byte_but_of_the_last_line_is_found_in_its_line(file):
    whole = file.read_bytes()
    *_, before, last = read(file, "abc")
    for place in range(0, before.end, 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(Fault, match=r"Line \d of .*journal.jsonl was changed, or lines before it are missing"):
            list(read(file, "abc"))
    for place in range(before.end, last.end, 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert len(list(read(file, "abc"))) == len(ROWS) - 1


def test_a_journal_of_another_run_does_not_fit(file):
    with pytest.raises(Fault, match="Line 1 of"):
        list(read(file, "abd"))


@pytest.mark.parametrize("count", range(len(ROWS)))
def test_a_journal_goes_on_after_any_of_its_lines(file, count):
    whole = file.read_bytes()
    last = list(read(file, "abc"))[count - 1] if count else None
    with closing(Journal(file, "abc", last)) as again:
        assert file.stat().st_size == (last.end if last else 0)
        for row in ROWS[count:]:
            again.append(row)
    assert file.read_bytes() == whole


def test_writing_to_a_file_that_somebody_removed_is_a_fault(file):
    with closing(Journal(file, "abc", list(read(file, "abc"))[-1])) as journal:
        journal.append(ROWS[0])
        file.unlink()
        with pytest.raises(Fault, match=r"^Cannot write .*journal.jsonl: No such file or directory\.$"):
            journal.append(ROWS[1])


def test_a_missing_journal_is_named(tmp_path):
    with pytest.raises(Fault, match=r"^Cannot read .*journal.jsonl: no file\.$"):
        list(read(tmp_path / "journal.jsonl", "abc"))
