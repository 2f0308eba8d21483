"""What data sets need before their template: the details in which MeZO's prompts differ from the plain columns."""

import pytest

from zo_runner.errors import UserError
from zo_runner.tasks.prepare import PREPARE, boolq, copa, drop, preparation, record, squad, wsc
from zo_runner.tasks.rows import DataRow


@pytest.mark.parametrize(
    ("question", "asked"),
    [("is it", "Is it?"), ("Is it?", "Is it?"), ("is iPhone ", "Is iPhone?"), ("éa", "Éa?"), ("", "?")],
)
def test_boolq_asks_with_a_capital_and_a_question_mark(question, asked):
    assert boolq({"question": question}) == {"question": asked}


def test_wsc_lowers_the_pronoun_and_not_the_noun():
    assert wsc({"span1_text": "Mark", "span2_text": "HE"}) == {"span2_text": "he"}


@pytest.mark.parametrize(
    ("question", "premise", "choice", "asked"),
    [
        ("effect", "It rained.", "I got wet.", ("It rained", "so", "I got wet.")),
        ("cause", "It rained. ", "The clouds came.", ("It rained", "because", "the clouds came.")),
        ("cause", "Did it?", "It did.", ("Did it?", "because", "it did.")),
        # as MeZO's code has it: the whole first word, and only a bare "I" is spared
        ("effect", "On..", "TV was on.", ("On.", "so", "tv was on.")),
        ("effect", "On.", "I'm in.", ("On", "so", "i'm in.")),
    ],
)
def test_copa_goes_on_from_the_premise(question, premise, choice, asked):
    made = copa({"question": question, "premise": premise, "choice1": choice, "choice2": "I"})
    assert (made["premise"], made["conjunction"], made["choice1"]) == asked
    assert made["choice2"] == "I"


def test_record_fills_the_gap_and_finds_the_answers_among_the_entities():
    made = record(
        {
            "passage": "P\n@highlight\none\n@highlight\ntwo",
            "query": "@placeholder and @placeholder",
            "entities": ["A", "B", "A"],
            "answers": ["B", "gone", "A"],
        }
    )
    assert made["passage"] == "P\n- one\n- two"
    assert made["options"] == ["A and A", "B and B", "A and A"]
    assert made["correct"] == [1, 0]


def test_squad_and_drop_take_every_text_as_an_answer_of_its_own():
    assert squad({"answers": {"text": ["a", "b"], "answer_start": [0, 1]}}) == {"answers": ["a", "b"]}
    assert drop({"answers_spans": {"spans": ["1", "2"], "types": ["number", "number"]}}) == {"answers": ["1", "2"]}


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("boolq", {"question": 3}, "no text 'question'"),
        ("wsc", {"span1_text": "a"}, "no text 'span2_text'"),
        ("copa", {"question": "why"}, "the question 'why' is neither 'cause' nor 'effect'"),
        ("record", {"query": "a", "passage": "b", "entities": "c"}, "no list of texts 'entities'"),
        ("squad", {"answers": ["a"]}, "no list of texts 'answers.text'"),
        ("drop", {"answers_spans": {"spans": [1]}}, "no list of texts 'answers_spans.spans'"),
    ],
)
def test_a_row_of_another_form_is_refused_with_its_place_and_columns(name, values, problem):
    with pytest.raises(UserError) as refusal:
        preparation(name)(DataRow(values, "train[7]"))
    assert str(refusal.value) == (
        f"Invalid row at train[7]: {problem}. Must be a row as task.prepare={name} takes it; it has: "
        f"{', '.join(values)}."
    )


def test_a_prepared_row_keeps_its_place_and_its_other_columns():
    row = DataRow({"question": "is it", "idx": 4}, "train[7]")
    assert preparation("boolq")(row) == DataRow({"question": "Is it?", "idx": 4}, "train[7]")
    assert preparation(None)(row) is row


def test_an_unknown_preparation_is_refused_with_the_known_ones():
    with pytest.raises(UserError) as refusal:
        preparation("glue")
    known = ", ".join(sorted(PREPARE))
    assert str(refusal.value) == f"Invalid task.prepare: 'glue'. Must be null or one of {known}."
