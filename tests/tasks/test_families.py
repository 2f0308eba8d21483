"""What each family makes of a row, and which rows and settings it refuses."""

import inspect
import subprocess
import sys

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from tests.cli.helpers import configure, write_rows
from zo_runner import cli
from zo_runner.config.instantiate import build
from zo_runner.errors import UserError
from zo_runner.tasks.base import Example
from zo_runner.tasks.sources import FORMATS

TASKS = sorted(file.stem for file in (cli.HOME / "conf" / "task").glob("*.yaml"))


def load(name, folder, *rows, **arguments):
    """The training examples of a task on rows of one's own."""
    write_rows(folder, train=rows, dev=rows, test=rows)
    return build(configure(f"task={name}").task)(path=str(folder), **arguments).load(0).train


def refusal(name, folder, *rows, **arguments):
    with pytest.raises(UserError) as refused:
        load(name, folder, *rows, **arguments)
    return str(refused.value).replace(str(folder), "")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_file_lists_every_argument_of_its_family_and_its_source_and_nothing_else(name):
    node = OmegaConf.to_container(configure(f"task={name}").task)
    family = set(inspect.signature(get_class(node["_target_"])).parameters) - {"data"}
    source = set(inspect.signature(FORMATS[node["format"]]).parameters)
    assert not family & source
    assert set(node) == family | source | {"format", "name", "version", "_target_", "_partial_"}
    assert node["_partial_"] is True
    assert node["name"] == name


def test_tasks_load_without_torch():
    code = (
        "import sys; from zo_runner.tasks import classification, choice, generation, text; "
        "print({'torch', 'transformers', 'pyarrow', 'huggingface_hub'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


# Classification


ROW = {"text": "It rains.", "label": 1}


@pytest.mark.parametrize(
    ("null", "prompt"),
    [(None, None), ("", ""), (" It was", " It was"), ("{label}? It was", "1? It was"), ("{{}} It was", "{} It was")],
)
def test_the_null_prompt_may_have_no_field_and_even_no_text(null, prompt, tmp_path):
    (example,) = load("jsonl", tmp_path, ROW, null_template=null)
    assert example == Example("It rains. It was", ("terrible", "great"), (1,), prompt)


@pytest.mark.parametrize("name", ["jsonl", "jsonl_choice"])
def test_calibration_needs_a_null_prompt(name, tmp_path):
    message = refusal(name, tmp_path, ROW, calibrate=True, null_template=None)
    assert message.startswith("Invalid task.calibrate: True. Must be false, or task.null_template a text")
    row = {**ROW, "question": "Why?", "options": ["a", "b"]}
    assert load(name, tmp_path / "data", row, calibrate=True, null_template="")[0].null_prompt == ""


def test_a_family_passes_its_settings_on_to_the_scoring():
    task = build(configure("task=jsonl").task)(path=".", loss="answer", single_token=False, max_length=7)
    assert (task.scoring.loss, task.scoring.single_token, task.scoring.max_length) == ("answer", False, 7)
    assert task.scoring.metrics == ("accuracy",)
    task = build(configure("task=jsonl_generation").task)(path=".", metrics=["drop_f1"], stop=["#", "."])
    assert (task.scoring.metrics, task.scoring.stop) == (("drop_f1",), ("#", "."))
    assert not build(configure("task=jsonl_choice").task)(path=".").scoring.single_token


# Multiple choice


def choose(folder, options, label, **arguments):
    (example,) = load("jsonl_choice", folder, {"question": "Q", "options": options, "label": label}, **arguments)
    return example


@pytest.mark.parametrize(
    ("label", "correct"), [(0, (0,)), (2, (2,)), ("1", (1,)), ([2, 0], (2, 0)), ([1], (1,)), (["0", 2], (0, 2))]
)
def test_a_label_is_the_number_of_an_option_or_several_numbers(label, correct, tmp_path):
    assert choose(tmp_path, ["a", "b", "c"], label) == Example(
        "Question: Q\nAnswer:", ("a", "b", "c"), correct, "Answer:"
    )


def test_an_option_that_stands_twice_is_one_option(tmp_path):
    example = choose(tmp_path, ["a", "b", "a ", "c", "b"], [2, 4, 0, 3])
    assert (example.options, example.correct) == (("a", "b", "c"), (0, 1, 2))


@pytest.mark.parametrize("label", [3, -1, "x", True, 1.0, [], [0, 3], {"0": 1}, "²"])
def test_a_label_that_is_no_options_number_is_refused_with_the_row(label, tmp_path):
    message = refusal("jsonl_choice", tmp_path, {"question": "Q", "options": ["a", "b", "c"], "label": label})
    assert message == (
        f"Invalid label at /train.jsonl:1: {label!r}. Must be the number of an option, from 0 to 2, or a list of such "
        "numbers."
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["a", " "], "['a', '']. Must be texts, none of them empty."),
        (["a"], "['a']. Must be at least two different texts."),
        (["a", "a"], "['a']. Must be at least two different texts."),
        ([], "[]. Must be at least two different texts."),
        ("ab", "'ab'. Must be a list of texts."),
        ([1, 2], "[1, 2]. Must be a list of texts."),
    ],
)
def test_options_that_leave_nothing_to_choose_are_refused_with_the_row(options, told, tmp_path):
    message = refusal("jsonl_choice", tmp_path, {"question": "Q", "options": options, "label": 0})
    assert message == f"Invalid options at /train.jsonl:1: {told}"


def test_options_may_be_templates_of_which_some_say_the_same_for_every_row(tmp_path):
    row = {"question": "Q", "a": "A", "label": 1}
    (example,) = load("jsonl_choice", tmp_path, row, options=["{a}", "it, {a}", "None of them"])
    assert example.options == ("A", "it, A", "None of them")
    message = refusal("jsonl_choice", tmp_path, row, options=["{a}", "{b}"])
    assert message.startswith("Invalid row at /train.jsonl:1: no 'b'. Must have every field of task.options; it has: q")
    message = refusal("jsonl_choice", tmp_path, row, options=["{a}"])
    assert message.startswith("Invalid task.options: ['{a}']. Must be at least two templates")
    message = refusal("jsonl_choice", tmp_path, row, options=["{a}", "{b"])
    assert message.startswith("Invalid task.options: '{b'. Must be text with {field} places")
    message = refusal("jsonl_choice", tmp_path, row, options="choices")
    assert message.startswith("Invalid row at /train.jsonl:1: no 'choices'. Must have the list that task.options names")


# Generation


@pytest.mark.parametrize(
    ("answers", "learnt", "golds"),
    [
        ("Rome ", "Rome\n", (("Rome",),)),
        (["Rome", "Roma", "Rome"], "Rome\n", (("Rome",), ("Roma",))),
        ([["Ann", "Bob"], ["Ann"]], "Ann, Bob\n", (("Ann", "Bob"), ("Ann",))),
        (7, "7\n", (("7",),)),
        ([2.5], "2.5\n", (("2.5",),)),
    ],
)
def test_the_first_gold_answer_is_learnt_with_the_stop_text_after_it(answers, learnt, golds, tmp_path):
    (example,) = load("jsonl_generation", tmp_path, {"question": "Q", "answers": answers})
    assert example == Example("Question: Q\nAnswer:", (learnt,), answers=golds)


def test_the_first_of_several_stop_texts_is_learnt_or_none(tmp_path):
    row = {"question": "Q", "answers": "A"}
    assert load("jsonl_generation", tmp_path, row, stop=[".", "\n"])[0].options == ("A.",)
    assert load("jsonl_generation", tmp_path, row, stop=[])[0].options == ("A",)


@pytest.mark.parametrize("answers", ["", " ", [], [""], ["a", ""], [[]], [["a", ""]], True, [None], {"a": 1}, [{}]])
def test_answers_that_are_no_texts_are_refused_with_the_row(answers, tmp_path):
    message = refusal("jsonl_generation", tmp_path, {"question": "Q", "answers": answers})
    assert message == (
        f"Invalid answers at /train.jsonl:1: {answers!r}. Must be a text, a list of texts, or a list of lists of "
        "texts, none of them empty."
    )


TEXTS = "Must be a list of texts, none of them empty."


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("jsonl", {"null_template": "{a.b}"}, "task.null_template: '{a.b}'. Must"),
        ("jsonl", {"loss": "f1"}, "task.loss: 'f1'. Must be one of answer, options."),
        ("jsonl_choice", {"loss": "hinge"}, "task.loss: 'hinge'. Must be one of answer, options."),
        ("jsonl_generation", {"loss": "options"}, "task.loss: 'options'. Must be one of answer, f1."),
        *((name, {"max_length": 0}, "task.max_length: 0. Must be >= 1") for name in ("jsonl", "jsonl_generation")),
        ("jsonl_generation", {"metrics": ["accuracy"]}, "task.metrics: 'accuracy'. Must be one of drop_exact_match, d"),
        ("jsonl_generation", {"metrics": []}, "task.metrics: []. Must be at least one of"),
        *(("jsonl_generation", {"stop": stop}, f"task.stop: {stop!r}. {TEXTS}") for stop in ([""], "\n")),
        ("jsonl_generation", {"max_new_tokens": 0}, "task.max_new_tokens: 0. Must be >= 1."),
    ],
)
def test_settings_of_a_family_are_checked(name, setting, told, tmp_path):
    assert refusal(name, tmp_path, ROW, **setting).startswith(f"Invalid {told}")
