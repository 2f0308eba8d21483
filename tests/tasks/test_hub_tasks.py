"""The eleven tasks of MeZO's OPT experiments: each YAML asks in the published words, on rows of the real form."""

import pytest

from tests.cli.helpers import configure
from tests.tasks.helpers import INT, INTS, LONG, TEXT, TEXTS, TRUTH, repository, struct
from zo_runner.config.instantiate import build
from zo_runner.tasks.base import Example

SUPER_GLUE = {"idx": INT, "label": LONG}

# task: where its files lie, its columns, one row, and the example that it must become
ROWS = {
    "sst2": (
        "sst2",
        {"sentence": TEXT, "label": LONG, "idx": INT},
        {"sentence": "a moving , if uneven , success . ", "label": 1, "idx": 4},
        Example("a moving , if uneven , success . It was", ("terrible", "great"), (1,), " It was"),
    ),
    "rte": (
        "rte",
        {"premise": TEXT, "hypothesis": TEXT, **SUPER_GLUE},
        {"premise": "The yen fell.", "hypothesis": "The yen rose.", "idx": 0, "label": 1},
        Example('The yen fell.\nDoes this mean that "The yen rose." is true? Yes or No?\n', ("Yes", "No"), (1,), ""),
    ),
    "cb": (
        "cb",
        {"premise": TEXT, "hypothesis": TEXT, **SUPER_GLUE},
        {"premise": "He thought it rained.", "hypothesis": "it rained", "idx": 0, "label": 2},
        Example(
            'Suppose He thought it rained. Can we infer that "it rained"? Yes, No, or Maybe?\n',
            ("Yes", "No", "Maybe"),
            (2,),
            "",
        ),
    ),
    "boolq": (
        "data",
        {"question": TEXT, "answer": TRUTH, "passage": TEXT},
        {"question": "is the sky blue", "answer": False, "passage": "The sky of Mars is red."},
        Example("The sky of Mars is red. Is the sky blue?\n", ("Yes", "No"), (1,), ""),
    ),
    "wsc": (
        "wsc.fixed",
        {"text": TEXT, "span1_index": INT, "span2_index": INT, "span1_text": TEXT, "span2_text": TEXT, **SUPER_GLUE},
        {
            **{"text": "Mark told Pete lies. He was cross.", "span1_index": 0, "span2_index": 4},
            **{"span1_text": "Mark", "span2_text": "He", "idx": 0, "label": 0},
        },
        Example(
            'Mark told Pete lies. He was cross.\nIn the previous sentence, does the pronoun "he" refer to Mark? '
            "Yes or No?\n",
            ("No", "Yes"),
            (0,),
            "",
        ),
    ),
    "wic": (
        "wic",
        {
            **{"word": TEXT, "sentence1": TEXT, "sentence2": TEXT},
            **{"start1": INT, "start2": INT, "end1": INT, "end2": INT, **SUPER_GLUE},
        },
        {
            **{"word": "bank", "sentence1": "A river bank.", "sentence2": "The bank is shut."},
            **{"start1": 8, "start2": 4, "end1": 12, "end2": 8, "idx": 0, "label": 1},
        },
        Example(
            'Does the word "bank" have the same meaning in these two sentences? Yes, No?\nA river bank.\n'
            "The bank is shut.\n",
            ("No", "Yes"),
            (1,),
            "",
        ),
    ),
    "multirc": (
        "multirc",
        {
            **{"paragraph": TEXT, "question": TEXT, "answer": TEXT},
            **{"idx": struct(paragraph=INT, question=INT, answer=INT), "label": LONG},
        },
        {
            **{"paragraph": "Ann sold her car.", "question": "Who sold a car?", "answer": "Ann"},
            **{"idx": {"paragraph": 0, "question": 0, "answer": 0}, "label": 1},
        },
        Example(
            'Ann sold her car.\nQuestion: Who sold a car?\nI found this answer "Ann". Is that correct? Yes or No?\n',
            ("No", "Yes"),
            (1,),
            "",
        ),
    ),
    "copa": (
        "copa",
        {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": TEXT, **SUPER_GLUE},
        {
            **{"premise": "The man fell.", "choice1": "The floor was wet.", "choice2": "I pushed him."},
            **{"question": "cause", "idx": 0, "label": 1},
        },
        Example("The man fell because", ("the floor was wet.", "I pushed him."), (1,), "because"),
    ),
    "record": (
        "record",
        {
            **{"passage": TEXT, "query": TEXT, "entities": TEXTS, "answers": TEXTS},
            **{"entity_spans": struct(text=TEXTS, start=INTS, end=INTS), "idx": struct(passage=INT, query=INT)},
        },
        {
            "passage": "Ann met Bob in Rome.\n@highlight\nAnn is tall.\n@highlight\nBob is not.",
            "query": "There @placeholder paid.",
            "entities": ["Ann", "Bob", "Rome"],
            "entity_spans": {"text": ["Ann", "Bob", "Rome"], "start": [0, 8, 15], "end": [3, 11, 19]},
            "answers": ["Bob", "Ann"],
            "idx": {"passage": 0, "query": 0},
        },
        Example(
            "Ann met Bob in Rome.\n- Ann is tall.\n- Bob is not.\n-",
            ("There Ann paid.", "There Bob paid.", "There Rome paid."),
            (1, 0),
            "-",
        ),
    ),
    "squad": (
        "plain_text",
        {
            "id": TEXT,
            "title": TEXT,
            "context": TEXT,
            "question": TEXT,
            "answers": struct(text=TEXTS, answer_start=INTS),
        },
        {
            **{"id": "5", "title": "Rome", "context": "Rome is old, very old.", "question": "How old is Rome? "},
            "answers": {"text": ["very old", "old", "very old"], "answer_start": [13, 8, 13]},
        },
        Example(
            "Title: Rome\nContext: Rome is old, very old.\nQuestion: How old is Rome?\nAnswer:",
            ("very old\n",),
            answers=(("very old",), ("old",)),
        ),
    ),
    "drop": (
        "data",
        {
            **{"section_id": TEXT, "query_id": TEXT, "passage": TEXT, "question": TEXT},
            "answers_spans": struct(spans=TEXTS, types=TEXTS),
        },
        {
            **{"section_id": "nfl_1", "query_id": "a", "passage": "Ann and Bob ran.", "question": "Who ran?"},
            "answers_spans": {"spans": ["Ann", "Bob"], "types": ["span", "span"]},
        },
        Example("Passage: Ann and Bob ran.\nQuestion: Who ran?\nAnswer:", ("Ann\n",), answers=(("Ann",), ("Bob",))),
    ),
}
SIZES = {"cb": (150, 100, 56), "copa": (300, 100, 100), "wsc": (454, 100, 104)}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_real_form_becomes_the_published_prompt(name, tmp_path):
    place, columns, row, expected = ROWS[name]
    repository(tmp_path, place, columns, [row, row], [row])
    task = build(configure(f"task={name}", "task.num_train=1", "task.num_dev=1", f"task.path={tmp_path}").task)()
    splits = task.load(0)
    assert splits.train == splits.dev == splits.test == [expected]
    assert list(splits.files) == [f"{place}/{split}-00000-of-00001.parquet" for split in ("train", "validation")]


@pytest.mark.parametrize("name", ROWS)
def test_sizes_loss_and_metric_are_mezos_except_where_the_data_has_fewer(name):
    node = configure(f"task={name}").task
    assert (node.num_train, node.num_dev, node.num_test) == SIZES.get(name, (1000, 500, 1000))
    scoring = build(node)().scoring
    written = name in ("copa", "record", "squad", "drop")
    assert scoring.loss == ("answer" if written else "options")
    assert scoring.metrics[0] == ("f1" if name in ("squad", "drop") else "accuracy")
    assert not scoring.calibrate
    assert scoring.max_length is None
    assert (scoring.max_new_tokens, scoring.stop) == (50, ("\n",))
