"""Tasks: templates that only fill in, labels that mean what they say, splits that share nothing."""

import hashlib
import json

import pytest

from tests.cli.helpers import configure, write_rows
from zo_runner.config.instantiate import build
from zo_runner.errors import UserError
from zo_runner.tasks import pocket_grammar
from zo_runner.tasks.base import Example, Template
from zo_runner.tasks.classification import Classification

# Template


@pytest.mark.parametrize(
    "text",
    [
        *("{a.__class__}", "{a[0]}", "{a!r}", "{a:>99999999}", "{0}", "{}", "{a:{b}}", "{a b}", "{ a}"),
        *("no field", "", "{{a}}", "{", "}", "{a", "a}", "{a} {b.c}"),
    ],
)
def test_a_template_takes_nothing_but_plain_fields(text):
    with pytest.raises(UserError) as refusal:
        Template(text)
    assert str(refusal.value).startswith(f"Invalid task.template: {text!r}. Must be text with ")


def test_values_are_filled_in_as_they_are_and_not_read_again():
    row = {"a": " {b} {{x}} %s ", "b": "secret", "c": 3}
    assert Template("{{{a}}} It was").render(row) == "{{b} {{x}} %s} It was"
    assert Template("{c}, {a}").render(row) == "3, {b} {{x}} %s"


# Label words


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["good"], "at least two different words"),
        (["good", "good"], "at least two different words"),
        ([True, False], "words, quoted where YAML would read something else"),
        ([1, 2], "words, quoted where YAML would read something else"),
    ],
)
def test_label_words_are_different_words(words, allowed):
    with pytest.raises(UserError) as refusal:
        build(configure().task)(label_words=words)
    assert str(refusal.value) == f"Invalid task.label_words: {words!r}. Must be {allowed}."


# Rows of a person's own file


WORDS = ("bad", "good")


def jsonl(folder, **arguments):
    return build(configure("task=jsonl").task)(path=str(folder), template="{text}", label_words=WORDS, **arguments)


def example(text, label):
    return Example(text, WORDS, (label,))


@pytest.mark.parametrize(
    "labels",
    [[0, 1], ["neg", "pos"], [False, True], ["1", 1], [0, False], ["", "x"], [1.5, 2.5], [[1], [2]]],
    ids=str,
)
def test_any_json_value_can_be_a_label_and_only_equals_itself(labels, tmp_path):
    rows = [{"text": "a", "label": labels[1]}, {"text": "b", "label": labels[0]}]
    task = jsonl(write_rows(tmp_path, train=rows, dev=rows, test=rows), labels=labels)
    assert task.load(0).train == [example("a", 1), example("b", 0)]


@pytest.mark.parametrize(("labels", "value"), [([0, 1], True), ([0, 1], "1"), (["0", "1"], 1), ([False, True], 1)])
def test_a_label_of_another_type_is_not_the_same_label(labels, value, tmp_path):
    rows = [{"text": "a", "label": value}]
    with pytest.raises(UserError, match=rf"^Invalid label at .*train\.jsonl:1: {value!r}\. Must be one of "):
        jsonl(write_rows(tmp_path, train=rows), labels=labels).load(0)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [0, 0], ["a", "a"]])
def test_there_is_one_value_per_label_word(labels, tmp_path):
    with pytest.raises(UserError, match=r"^Invalid task\.labels: .*Must be 2 different values, one per label word\."):
        jsonl(tmp_path, labels=labels)


def test_files_keep_their_order_and_their_split(tmp_path):
    splits = {name: [{"text": f"{name} {i}", "label": i % 2} for i in range(5)] for name in ("train", "dev", "test")}
    task = jsonl(write_rows(tmp_path, **splits))
    loaded = task.load(0)
    for name, rows in splits.items():
        assert getattr(loaded, name) == [example(row["text"], row["label"]) for row in rows]
    assert task.load(1) == loaded


def test_line_separators_inside_a_text_do_not_split_a_row(tmp_path):
    rows = [{"text": "one\u2028two\u0085three", "label": 0}]
    write_rows(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert jsonl(tmp_path).load(0).train == [example(rows[0]["text"], 0)]


# The pocket tasks


def pocket(name, **arguments):
    return build(configure(f"task={name}").task)(**arguments)


@pytest.mark.parametrize("name", ["pocket_sentiment", "pocket_entailment"])
def test_pocket_splits_share_nothing_and_have_the_sizes_asked_for(name):
    task = pocket(name)
    assert isinstance(task, Classification)
    assert task.scoring.single_token
    for seed in range(3):
        splits = task.load(seed)
        parts = [splits.train, splits.dev, splits.test]
        assert [len(part) for part in parts] == [1000, 500, 1000]
        prompts = [{example.prompt for example in part} for part in parts]
        assert sum(map(len, prompts)) == len(set().union(*prompts)) == 2500


def test_pocket_splits_follow_the_seed_and_the_test_part_does_not():
    task = pocket("pocket_sentiment", num_train=100, num_dev=50, num_test=60)
    one, again, other = task.load(0), task.load(0), task.load(1)
    assert one == again
    assert one.test == other.test
    assert one.train != other.train
    assert one.dev != other.dev


@pytest.mark.parametrize("name", ["sentiment", "entailment"])
def test_a_pocket_task_asks_in_the_words_that_its_model_was_pretrained_on(name):
    task = pocket(f"pocket_{name}")
    assert task.template.text == pocket_grammar.TEMPLATES[name]
    assert task.label_words == list(pocket_grammar.LABEL_WORDS[name])


# sha256 of [[prompt, label], ...] of train, dev and test, as zo-run 0.1.0 drew them
DRAWN = {
    ("sentiment", 0): "4cf76036cc2f42c8",
    ("sentiment", 7): "16af6ffae013933a",
    ("entailment", 0): "25db1df732aaeb69",
    ("entailment", 7): "8a75440f332cb7de",
}


@pytest.mark.parametrize(("name", "seed"), DRAWN)
def test_the_rows_of_a_pocket_task_never_change(name, seed):
    splits = pocket(f"pocket_{name}").load(seed)
    drawn = [[[row.prompt, row.correct[0]] for row in part] for part in (splits.train, splits.dev, splits.test)]
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16] == DRAWN[name, seed]
    assert list(splits.files) == [f"generated/{name}"]
    assert splits.files == pocket(f"pocket_{name}").load(seed + 1).files
