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
        (["rank=0"], "Invalid rank: 0. Must "),
        (["method=mezo", "runtime.evaluation=batched"], "Invalid runtime.evaluation: 'batched'. Must "),
        (["method=lora_zo", "runtime.fold=true"], "Invalid runtime.fold: True. Must "),
        (["rank=-1"], "Invalid rank: -1. Must "),
        (["rank=1.5"], "Invalid rank: '1.5'. Must "),
        (["rank=abc"], "Invalid rank: 'abc'. Must "),
        (["method.eps=0"], "Invalid method.eps: 0. Must "),
        (["method.lr=nan"], "Invalid method.lr: nan. Must "),
        (["method.lr=-1"], "Invalid method.lr: -1. Must "),
        (["method.order=upwards"], "Invalid method.order: 'upwards'. Must be one of cyclic, shuffled, random."),
        (["budget.queries=1"], "Invalid budget.queries: 1. Must be >= 2,"),
        (["method=fo_sgd", "budget.queries=2"], "Invalid budget.queries: 2. Must be >= 3,"),
        (["method=fo_adamw", "method.lr=auto"], "Invalid method.lr: 'auto'. Must "),
        (["method=fo_adamw", "+method.eps=auto"], "Invalid method.eps: 'auto'. Must "),
        (["method=fo_adamw", "method.beta2=1"], "Invalid method.beta2: 1. Must "),
        (["method=fo_sgd", "job=probe"], "Invalid method: 'fo_sgd'. Must "),
        (["method=adaprelora", "method.trains=full"], "Invalid method.trains: 'full'. Must "),
        (["batch_size=65"], "Invalid batch_size: 65. Must be from 1 to the 64 "),
        (["adapter.target_modules=[nothing]"], "Invalid adapter.target_modules: ['nothing']. Must "),
        ([f"rank={10**30}"], f"Invalid rank: {10**30}. Must "),
        (["runtime.threads=99999999999999"], "Invalid runtime.threads: 99999999999999. Must "),
        (["calibration.probes=10001"], "Invalid calibration.probes: 10001. Must "),
        (["task.num_dev=1.0"], "Invalid task.num_dev: 1.0. Must "),
        (["task.num_dev=0"], "Invalid task.num_dev: 0. Must "),
        (["task.grammar=poetry"], "Invalid task.grammar: 'poetry'. Must "),
        (["task=pocket_entailment", "task.num_train=9000"], "Invalid task.num_train: 9000. Must "),
        (["task.label_words=[good,good]"], "Invalid task.label_words: ['good', 'good']. Must "),
        (["task.label_words=[yes,3]"], "Invalid task.label_words: ['yes', 3]. Must "),
        (['task.template="{text} It was {"'], "Invalid task.template: '{text} It was {'. Must "),
        (['task.template="It was"'], "Invalid task.template: 'It was'. Must "),
        (['task.template="{text.upper}"'], "Invalid task.template: '{text.upper}'. Must "),
        (["runtime.device=abacus"], "Invalid runtime.device: 'abacus'. Must "),
        (["model.name=../x"], "Invalid model.name: '../x'. Must "),
        (["task.name=a/b"], "Invalid task.name: 'a/b'. Must "),
        (["method._target_=os.system"], "Invalid method._target_: 'os.system'. Must "),
        (["task._target_=builtins.eval"], "Invalid _target_: 'builtins.eval'. Must "),
        (["model=local"], "Invalid model.path: None. Must "),
        (["model=local", "model.path=/nowhere"], "Invalid model.path: '/nowhere'. Must "),
        (["task=jsonl"], "Invalid task.path: None. Must "),
        (["task=jsonl", "task.path=/nowhere"], "Invalid task.path: '/nowhere'. Must "),
        (["rnak=3"], "Unknown key 'rnak'."),
        (["method.ep=1"], "Unknown key 'method.ep'."),
        (["+foo=1"], "Unknown key 'foo'."),
        (["rank=${nope}"], "Interpolation key 'nope' not found"),
        (["seed=???"], "Invalid seed: None. Must "),
        (["model=${rank}"], "Error resolving interpolation '${rank}', possible"),
        (["=0"], "Cannot compose "),
        (["model=[[]]"], "Cannot compose "),
        (["method.name=null"], "Invalid method.name: None. Must "),
        (["method.fallback=3"], "Invalid method.fallback: 3. Must "),
        (["adapter.target_modules=null"], "Invalid adapter.target_modules: None. Must "),
        (["model.path=nope"], "Invalid model.path: 'nope'. Must "),
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
    assert line.startswith("Invalid method.trains: 'full'. Must ")


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "opt"', encoding="utf-8")
    line = refusal(tmp_path / "runs", "model=local", f"model.path={tmp_path / 'model'}")
    assert line.startswith(f"Invalid model.path: '{tmp_path / 'model'}' (")


def test_a_root_below_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = refusal(tmp_path / "file" / "runs")
    assert line.startswith(f"Invalid runtime.root: '{tmp_path / 'file' / 'runs'}' (Not a directory). Must ")


def test_a_label_word_of_several_tokens_is_refused_with_words_that_would_do(tmp_path):
    line = refusal(tmp_path / "runs", "task.label_words=[unbelievable,great]")
    assert line.startswith("Invalid task.label_words: 'unbelievable'. Must ")
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
        ('{"text": "The soup was bland."}', "Invalid row at {place}: no 'label'. Must "),
        ('{"label": 1}', "Invalid row at {place}: no 'text'. Must "),
        ('{"text": "It", "label": 2}', "Invalid label at {place}: 2. Must "),
        ('{"text": "It", "label": "1"}', "Invalid label at {place}: '1'. Must "),
        ("The soup was bland.", "Invalid row at {place}: not JSON. Must "),
        ('["The soup", 1]', "Invalid row at {place}: list. Must "),
        ("[" * 100_000, "Invalid row at {place}: not JSON."),
        ('{"text": "\\ud83d", "label": 0}', r"Invalid row at {place}: '\ud83d', half a character. Must "),
        ('{"text": "a", "label": NaN}', "Invalid row at {place}: NaN. Must "),
        ('{"text": 1e999, "label": 0}', "Invalid row at {place}: 1e999. Must "),
        ('{"text": "a", "label": 0, "label": 1}', "Invalid row at {place}: the key 'label' twice. Must "),
        ('{"text": ["a"], "label": 0}', "Invalid text at {place}: ['a']. Must "),
        ('{"\\n\\u001b": 1}', r"Invalid row at {place}: no 'text'. Must "),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_row_is_refused_by_file_and_line(row, told, tmp_path):
    data, line = refused_rows(tmp_path, dev=f"{GOOD}\n\n{row}\n{GOOD}\n")
    assert line.startswith(told.replace("{place}", f"{data / 'dev.jsonl'}:3"))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"dev": ""}, "Invalid {data}/dev.jsonl: no rows. Must "),
        ({"dev": None}, "Invalid task.path: '{data}'. Must "),
        ({"train": None}, "Invalid task.path: '{data}'. Must "),
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
    assert line.startswith("Invalid task.labels: ['bad', 'good', 'fair']. Must ")


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    _, line = refused_rows(tmp_path, "batch_size=3")
    assert line.startswith("Invalid batch_size: 3. Must ")


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
        r"zo-run: warning: 1 of 4 train prompts are cut at the beginning: the longest has \d+ tokens; the limit is 256 "
        r"with the option \(task\.max_length or the model's\)",
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
