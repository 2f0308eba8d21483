"""Bad input is one line that names the key and the value, exit code 1, and nothing on disk."""

import json
import re

import pytest

from tests.cli.helpers import SMALL, write_rows, zo_run
from tests.conformance.cases import METHODS
from zo_runner.assets import asset_path


def refusal(root, *words):
    """The one line with which a command is refused."""
    ended = zo_run(*SMALL, f"runtime.root={root}", *words)
    assert ended.code == 1
    assert not list(root.parent.rglob("result.json"))
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("zo-run: error: ")
    return lines[0].removeprefix("zo-run: error: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=nope"], f"Invalid method: 'nope'. Must be one of {', '.join(METHODS)}."),
        (["rank=0"], "Invalid rank: 0. Must be an integer >= 1."),
        (["method=mezo", "runtime.evaluation=batched"], "Invalid runtime.evaluation: 'batched'. Must be auto or seq"),
        (["method=lora_zo", "runtime.fold=true"], "Invalid runtime.fold: True. Must be null or false but for one-atom"),
        (["rank=-1"], "Invalid rank: -1. Must be an integer >= 1."),
        (["rank=1.5"], "Invalid rank: '1.5'. Must be an integer."),
        (["rank=abc"], "Invalid rank: 'abc'. Must be an integer."),
        (["method.eps=0"], "Invalid method.eps: 0. Must be a finite number > 0, or auto."),
        (["method.lr=nan"], "Invalid method.lr: nan. Must be a finite number >= 0, or auto."),
        (["method.lr=-1"], "Invalid method.lr: -1. Must be a finite number >= 0, or auto."),
        (["method.order=upwards"], "Invalid method.order: 'upwards'. Must be one of cyclic, shuffled, random."),
        (["budget.queries=1"], "Invalid budget.queries: 1. Must be >= 2, the cost of one step of ar1zo."),
        (
            ["method=fo_sgd", "budget.queries=2"],
            "Invalid budget.queries: 2. Must be >= 3, the cost of one step of fo_sgd.",
        ),
        (["method=fo_adamw", "method.lr=auto"], "Invalid method.lr: 'auto'. Must be a finite number >= 0."),
        (["method=fo_adamw", "+method.eps=auto"], "Invalid method.eps: 'auto'. Must be a finite number > 0."),
        (["method=fo_adamw", "method.beta2=1"], "Invalid method.beta2: 1. Must be a finite number >= 0 and < 1."),
        (["method=fo_sgd", "job=probe"], "Invalid method: 'fo_sgd'. Must be a zeroth-order method, for job=probe."),
        (
            ["method=adaprelora", "method.trains=full"],
            "Invalid method.trains: 'full'. Must be adapter, since the method",
        ),
        (["batch_size=65"], "Invalid batch_size: 65. Must be from 1 to the 64 training examples."),
        (["adapter.target_modules=[nothing]"], "Invalid adapter.target_modules: ['nothing']. Must match linear mod"),
        ([f"rank={10**30}"], f"Invalid rank: {10**30}. Must be a number of 63 bits at most."),
        (["runtime.threads=99999999999999"], "Invalid runtime.threads: 99999999999999. Must be at most 65536."),
        (["calibration.probes=10001"], "Invalid calibration.probes: 10001. Must be at most 10000."),
        (["task.num_dev=1.0"], "Invalid task.num_dev: 1.0. Must be an integer >= 1."),
        (["task.num_dev=0"], "Invalid task.num_dev: 0. Must be an integer >= 1."),
        (["task.grammar=poetry"], "Invalid task.grammar: 'poetry'. Must be one of "),
        (["task=pocket_entailment", "task.num_train=9000"], "Invalid task.num_train: 9000. Must be "),
        (["task.label_words=[good,good]"], "Invalid task.label_words: ['good', 'good']. Must be at least two diff"),
        (["task.label_words=[yes,3]"], "Invalid task.label_words: ['yes', 3]. Must be words"),
        (['task.template="{text} It was {"'], "Invalid task.template: '{text} It was {'. Must be text with "),
        (['task.template="It was"'], "Invalid task.template: 'It was'. Must be text with at least one plain {field}"),
        (['task.template="{text.upper}"'], "Invalid task.template: '{text.upper}'. Must be "),
        (["runtime.device=abacus"], "Invalid runtime.device: 'abacus'. Must be auto, cpu, or an accelerator"),
        (["model.name=../x"], "Invalid model.name: '../x'. Must be letters, digits, dots, dashes and underscores"),
        (["task.name=a/b"], "Invalid task.name: 'a/b'. Must be letters, digits, dots, dashes and underscores"),
        (["method._target_=os.system"], "Invalid method._target_: 'os.system'. Must be a class of zo_runner"),
        (["task._target_=builtins.eval"], "Invalid _target_: 'builtins.eval'. Must be a class of zo_runner."),
        (["model=local"], "Invalid model.path: None. Must be a folder of a causal language model, or a Hub id."),
        (["model=local", "model.path=/nowhere"], "Invalid model.path: '/nowhere'. Must be a folder that holds config"),
        (["task=jsonl"], "Invalid task.path: None. Must be a folder holding train.jsonl, dev.jsonl, test.jsonl."),
        (
            ["task=jsonl", "task.path=/nowhere"],
            "Invalid task.path: '/nowhere'. Must be a folder holding train.",
        ),
        (["rnak=3"], "Unknown key 'rnak'."),
        (["method.ep=1"], "Unknown key 'method.ep'."),
        (["+foo=1"], "Unknown key 'foo'."),
        (["rank=${nope}"], "Interpolation key 'nope' not found"),
        (["seed=???"], "Invalid seed: None. Must be given."),
        (["model=${rank}"], "Error resolving interpolation '${rank}', possible"),
        (["=0"], "Cannot compose "),
        (["model=[[]]"], "Cannot compose "),
        (["method.name=null"], "Invalid method.name: None. Must be letters, digits, dots, dashes and underscores"),
        (["method.fallback=3"], "Invalid method.fallback: 3. Must be an lr and an eps"),
        (["adapter.target_modules=null"], "Invalid adapter.target_modules: None. Must be given."),
        (["model.path=nope"], "Invalid model.path: 'nope'. Must be one of pocket_opt, pocket_qwen3."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_names_the_key_the_value_and_what_is_allowed(words, told, tmp_path):
    # task=jsonl has no num_* keys, so the small sizes are left out where a task is chosen.
    given = [word for word in words if not word.startswith("task=jsonl")]
    if len(given) < len(words):
        ended = zo_run("tracker=none", "task=jsonl", *given, f"runtime.root={tmp_path}")
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(f"zo-run: error: {told}")
        assert len(ended.err.splitlines()) == 1
        assert not list(tmp_path.rglob("*"))
    else:
        assert refusal(tmp_path / "runs", *words).startswith(told)


def test_an_argument_that_the_constructor_does_not_take_is_refused(tmp_path):
    line = refusal(tmp_path / "runs", "+method.foo=1")
    assert "foo" in line
    assert line.startswith(("Invalid method", "Unknown key"))


def test_a_method_of_atoms_cannot_train_the_full_model(tmp_path):
    line = refusal(tmp_path / "runs", "method=ar1zo", "method.trains=full")
    assert line.startswith("Invalid method.trains: 'full'. Must be ")


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "opt"', encoding="utf-8")
    line = refusal(tmp_path / "runs", "model=local", f"model.path={tmp_path / 'model'}")
    assert line.startswith(f"Invalid model.path: '{tmp_path / 'model'}' (")


def test_a_root_below_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = refusal(tmp_path / "file" / "runs")
    assert line.startswith(f"Invalid runtime.root: '{tmp_path / 'file' / 'runs'}' (Not a directory). Must be a folder")


def test_a_label_word_of_several_tokens_is_refused_with_words_that_would_do(tmp_path):
    line = refusal(tmp_path / "runs", "task.label_words=[unbelievable,great]")
    assert line.startswith("Invalid task.label_words: 'unbelievable'. Must be words that are one token each")
    assert "terrible great" in line


# Rows of a person's own file

GOOD = '{"text": "The soup was bland.", "label": 0}'


def refused_rows(tmp_path, *words, **files):
    """The line for a data folder in which `files` stand instead of good ones (None: no such file)."""
    data = write_rows(tmp_path / "data")
    for name, content in files.items():
        (data / f"{name}.jsonl").unlink()
        if content is not None:
            (data / f"{name}.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    common = ("budget=smoke", "batch_size=1", "tracker=none", "task=jsonl", f"task.path={data}")
    ended = zo_run(*common, f"runtime.root={tmp_path / 'runs'}", *words)
    assert ended.code == 1
    assert ended.out == ""
    assert not list(tmp_path.rglob("result.json"))
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("zo-run: error: Invalid ")
    return data, lines[0].removeprefix("zo-run: error: ")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            '{"text": "The soup was bland."}',
            "Invalid row at {place}: no 'label'. Must have the key that task.label",
        ),
        ('{"label": 1}', "Invalid row at {place}: no 'text'. Must have every field of task.template; it has: label."),
        ('{"text": "It", "label": 2}', "Invalid label at {place}: 2. Must be one of 0, 1."),
        ('{"text": "It", "label": "1"}', "Invalid label at {place}: '1'. Must be one of 0, 1."),
        ("The soup was bland.", "Invalid row at {place}: 'The soup was bland.'. Must be one JSON object"),
        ('["The soup", 1]', "Invalid row at {place}: "),
        ("[" * 100_000, "Invalid row at {place}: "),
        ('{"text": "\\ud83d", "label": 0}', "Invalid row at {place}: "),
        ('{"text": "a", "label": NaN}', "Invalid row at {place}: "),
        ('{"text": 1e999, "label": 0}', "Invalid row at {place}: "),
        (
            '{"text": ["a"], "label": 0}',
            "Invalid text at {place}: ['a']. Must be a text or a number, for task.template.",
        ),
        (
            '{"\\n\\u001b": 1}',
            r"Invalid row at {place}: no 'text'. Must have every field of task.template; it has: \n\x1b",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_row_is_refused_by_file_and_line(row, told, tmp_path):
    data, line = refused_rows(tmp_path, dev=f"{GOOD}\n\n{row}\n{GOOD}\n")
    assert line.startswith(told.replace("{place}", f"{data / 'dev.jsonl'}:3"))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"dev": ""}, "Invalid {data}/dev.jsonl: no rows. Must hold at least one JSON object."),
        ({"dev": None}, "Invalid task.path: '{data}'. Must be a folder holding dev.jsonl."),
        ({"train": None}, "Invalid task.path: '{data}'. Must be a folder holding train.jsonl."),
        ({"test": b'{"text": "caf\xe9", "label": 0}\n'}, "Invalid {data}/test.jsonl: "),
    ],
    ids=["empty", "no dev", "no train", "latin-1"],
)
def test_a_bad_file_is_refused_by_name(files, told, tmp_path):
    data, line = refused_rows(tmp_path, **files)
    assert line.startswith(told.replace("{data}", str(data)))
    assert "UTF-8" in line or "latin-1" not in str(files)


def test_labels_of_another_number_than_the_words_are_refused(tmp_path):
    _, line = refused_rows(tmp_path, "task.labels=[bad,good,fair]")
    assert line.startswith("Invalid task.labels: ['bad', 'good', 'fair']. Must be 2 different values")


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    _, line = refused_rows(tmp_path, "batch_size=3")
    assert line.startswith("Invalid batch_size: 3. Must be from 1 to the 2 training examples.")


def test_good_rows_of_strings_train_on_a_local_model(tmp_path):
    rows = [{"review": f"The soup number {i} was bland.", "verdict": ["neg", "pos"][i % 2]} for i in range(8)]
    data = write_rows(tmp_path / "data", train=rows, dev=rows, test=rows)
    ended = zo_run(
        *("task=jsonl", f"task.path={data}", "task.labels=[neg,pos]", "task.label_field=verdict", "batch_size=4"),
        *('task.template="{review} It was"', "model=local", f"model.path={asset_path('pocket_opt')}"),
        *("tracker=none", "budget.queries=4", f"runtime.root={tmp_path / 'runs'}"),
    )
    assert ended.code == 0, ended.err
    (result,) = (tmp_path / "runs" / "jsonl" / "local").rglob("result.json")
    assert json.loads(result.read_text(encoding="utf-8"))["status"] == "done"


def test_a_prompt_longer_than_the_model_reads_is_cut_and_said(tmp_path):
    """One line per split: how many prompts, how long, and the limit, which here is the model's 256."""
    rows = [{"text": f"The soup number {i} was bland. " * (60 if i == 0 else 1), "label": i % 2} for i in range(4)]
    data = write_rows(tmp_path / "data", train=rows)
    words = ("task=jsonl", f"task.path={data}", "batch_size=2", "tracker=none", "budget.queries=4")
    ended = zo_run(*words, f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 0, ended.err
    (line,) = ended.err.splitlines()
    assert re.fullmatch(
        r"zo-run: warning: 1 of 4 train prompts lose their beginning: the longest has \d+ tokens, and task\.max_length "
        r"or the model allows 256 with the option",
        line,
    )


def test_an_option_without_text_and_a_template_with_an_unknown_field_are_refused_by_row(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    row = {"question": "What?", "options": ["bland", " "], "label": 0}
    for name in ("train", "dev", "test"):
        (data / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    line = refusal_of_choice(tmp_path, data)
    assert line == f"Invalid options at {data / 'train.jsonl'}:1: ['bland', '']. Must be texts, none of them empty."
    line = refusal_of_choice(tmp_path, data, 'task.template="{query}"')
    assert line == (
        f"Invalid row at {data / 'train.jsonl'}:1: no 'query'. "
        "Must have every field of task.template; it has: question, options, label."
    )


def refusal_of_choice(tmp_path, data, *words):
    ended = zo_run(
        "task=jsonl_choice", f"task.path={data}", "tracker=none", f"runtime.root={tmp_path / 'runs'}", *words
    )
    assert (ended.code, ended.out) == (1, "")
    assert not list(tmp_path.rglob("result.json"))
    (line,) = ended.err.splitlines()
    return line.removeprefix("zo-run: error: ")
