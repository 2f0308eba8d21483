"""Broken input of every kind is read as what it is or refused in one line: a few cases of each; `make faults` has all.

What the fuzzing found is tested where such input is: this only keeps the kinds themselves working.
"""

import pytest

from tests.faults.fuzz import Failed, fuzz, kinds
from tests.faults.fuzz_kinds import Kind
from zo_runner.errors import UserError

CASES = 5


def test_a_few_cases_of_every_kind(tmp_path):
    for kind in kinds(tmp_path):
        fuzz(kind, max(2, round(CASES * kind.share)), 0)


def strict(text):
    """A reader that is wrong about one letter."""
    if text == "":
        raise UserError("Invalid text: ''. Must be a text.")
    if "a" in text:
        raise KeyError("a")
    return True


def test_what_gets_past_the_readers_ends_the_fuzzing_with_the_smallest_case():
    from hypothesis import strategies as st

    from tests.faults.fuzz_kinds import accepted

    def check(case):
        return accepted(lambda: strict(case))

    with pytest.raises(Failed, match=r"^texts: 'a'\n(.|\n)*KeyError"):
        fuzz(Kind("texts", st.text("abc"), check), 100, 0)
    counted = fuzz(Kind("texts", st.text("bc", max_size=3), check), 10, 0)
    assert (counted["cases"], counted["refused"]) == (counted["accepted"] + counted["refused"], 1)


def test_a_reader_that_does_not_answer_is_a_failure(monkeypatch):
    import time

    from hypothesis import strategies as st

    monkeypatch.setattr("tests.faults.fuzz.SECONDS", 0.05)
    with pytest.raises(Failed, match="no answer in"):
        fuzz(Kind("sleepy", st.just(1), lambda case: time.sleep(9) or True), 1, 0)


def test_a_refusal_is_one_short_line_that_names_what_it_refuses():
    from tests.faults.fuzz_kinds import told

    told("Invalid \n\x1b[2J: 'x'. Must be y.", "Must be y")
    told("x" * 100_000)
    with pytest.raises(AssertionError, match="does not name"):
        told("Invalid key.", "the file")
    with pytest.raises(AssertionError, match="without a word"):
        told(" ")
