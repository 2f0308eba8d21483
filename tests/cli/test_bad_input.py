"""Bad input is one line that names the key and the value, exit code 1, and nothing on disk."""

import json
import re

import pytest

from tests.cli.helpers import SMALL, write_rows, zo_run
from tests.cli.test_refusals import refused
from tests.conformance.cases import METHODS
from zo_runner.assets import asset_path

# The last word of a line is the one to be refused, by its key and this value.
REFUSED = """
rank=0
rank=1.5
rank=abc
method.eps=0
method.lr=nan
method.lr=-1
method.order=upwards
method.name=null
method.fallback=3
budget.queries=1
method=fo_sgd budget.queries=2
method=fo_adamw method.lr=auto
method=fo_adamw +method.eps=auto
method=fo_adamw method.beta2=1
method=adaprelora method.trains=full
method=ar1zo method.trains=full
method=mezo runtime.evaluation=batched
method=lora_zo runtime.fold=true
job=probe method=fo_sgd
batch_size=65
adapter.target_modules=[nothing]
adapter.target_modules=null
runtime.threads=99999999999999
runtime.device=abacus
calibration.probes=10001
task.num_dev=1.0
task.num_dev=0
task.grammar=poetry
task=pocket_entailment task.num_train=9000
task.label_words=[good,good]
task.label_words=[yes,3]
task.label_words=[unbelievable,great]
task.template="{text} It was {"
task.template="It was"
task.template="{text.upper}"
model.name=../x
task.name=a/b
model.path=nope
model=local model.path=/nowhere
method._target_=os.system
seed=???
"""
OTHERWISE = [
    (["method=nope"], f"Invalid method: 'nope'. Must be one of {', '.join(METHODS)}."),
    ([f"rank={10**30}"], f"Invalid rank: {10**30}. Must "),
    (["model=local"], "Invalid model.path: None. Must "),
    (["task._target_=builtins.eval"], "Invalid _target_: 'builtins.eval'. Must "),
    (["rnak=3"], "Unknown key 'rnak'."),
    (["method.ep=1"], "Unknown key 'method.ep'."),
    (["+foo=1"], "Unknown key 'foo'."),
    (["rank=${nope}"], "Interpolation key 'nope' not found"),
    (["model=${rank}"], "Error resolving interpolation '${rank}', possible"),
    (["=0"], "Cannot compose "),
    (["model=[[]]"], "Cannot compose "),
]


def words_of(line):
    """The words of a line; what is quoted is one."""
    return re.findall(r'(?:[^ "]|"[^"]*")+', line)


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_one_line_names_the_key_and_the_value(line, tmp_path):
    words = words_of(line)
    key, value = words[-1].lstrip("+").split("=")
    told = refused(tmp_path, *SMALL, *words)
    given = {"null": "None", "???": "None", "true": "True"}.get(value, value.strip('[]"').split(",")[0])
    assert re.match(rf"Invalid {re.escape(key)}: \W*{re.escape(given)}.* Must ", told)


@pytest.mark.parametrize(("words", "told"), OTHERWISE, ids=lambda value: " ".join(value)[:40])
def test_one_line_names_what_cannot_be_understood(words, told, tmp_path):
    assert refused(tmp_path, *SMALL, *words).startswith(told)


@pytest.mark.parametrize(("words", "value"), [([], None), (["task.path=/nowhere"], "/nowhere")])
def test_a_task_of_rows_needs_a_folder(words, value, tmp_path):
    # task=jsonl has no num_* keys, so the small sizes are left out.
    told = refused(tmp_path, "tracker=none", "task=jsonl", *words)
    assert told.startswith(f"Invalid task.path: {value!r}. Must ")


def test_an_argument_a_checkpoint_and_a_root_of_no_use_are_refused(tmp_path):
    line = refused(tmp_path, *SMALL, "+method.foo=1")
    assert "foo" in line
    assert line.startswith(("Invalid method", "Unknown key"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "opt"', encoding="utf-8")
    line = refused(tmp_path, *SMALL, "model=local", f"model.path={tmp_path / 'model'}")
    assert line.startswith(f"Invalid model.path: '{tmp_path / 'model'}' (")
    (tmp_path / "runs" / "runs").parent.mkdir(exist_ok=True)
    (tmp_path / "runs" / "runs").write_text("", encoding="utf-8")  # a file in the place of the root
    line = refused(tmp_path / "runs", *SMALL)
    assert line.startswith(f"Invalid runtime.root: '{tmp_path / 'runs' / 'runs'}' (")
    assert "terrible great" in refused(tmp_path, *SMALL, "task.label_words=[unbelievable,great]")  # words that would do


# Rows of a person's own file

GOOD = '{"text": "The soup was bland.", "label": 0}'


def refused_rows(tmp_path, *words, **files):
    """The line for a data folder in which `files` stand instead of good ones (None: no such file)."""
    data = write_rows(tmp_path / "data")
    for name, content in files.items():
        (data / f"{name}.jsonl").unlink()
        if content is not None:
            (data / f"{name}.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    small = ("budget=smoke", "batch_size=1", "tracker=none")
    return data, refused(tmp_path, *small, "task=jsonl", f"task.path={data}", *words)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"text": "The soup was bland."}', "Invalid row at {place}: no 'label'. Must "),
        ('{"label": 1}', "Invalid row at {place}: no 'text'. Must "),
        ('{"text": "It", "label": 2}', "Invalid label at {place}: 2. Must "),
        ('{"text": "It", "label": "1"}', "Invalid label at {place}: '1'. Must "),
        ("The soup was bland.", "Invalid row at {place}: 'The soup was bland.'. Must "),
        ('["The soup", 1]', "Invalid row at {place}: "),
        ("[" * 100_000, "Invalid row at {place}: "),
        ('{"text": "\\ud83d", "label": 0}', "Invalid row at {place}: "),
        ('{"text": "a", "label": NaN}', "Invalid row at {place}: "),
        ('{"text": 1e999, "label": 0}', "Invalid row at {place}: "),
        (
            '{"text": ["a"], "label": 0}',
            "Invalid text at {place}: ['a']. Must ",
        ),
        (
            '{"\\n\\u001b": 1}',
            r"Invalid row at {place}: no 'text'. Must ",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_row_is_refused_by_file_and_line(row, told, tmp_path):
    data, line = refused_rows(tmp_path, dev=f"{GOOD}\n\n{row}\n{GOOD}\n")
    assert line.startswith(told.replace("{place}", f"{data / 'dev.jsonl'}:3"))


@pytest.mark.parametrize(
    ("words", "files", "told"),
    [
        ([], {"dev": ""}, "Invalid {data}/dev.jsonl: no rows. Must "),
        ([], {"dev": None}, "Invalid task.path: '{data}'. Must "),
        ([], {"train": None}, "Invalid task.path: '{data}'. Must "),
        ([], {"test": b'{"text": "caf\xe9", "label": 0}\n'}, "Invalid {data}/test.jsonl: .*UTF-8"),
        (["task.labels=[bad,good,fair]"], {}, r"Invalid task.labels: \['bad', 'good', 'fair'\]. Must "),
        (["batch_size=3"], {}, "Invalid batch_size: 3. Must "),
    ],
    ids=["empty", "no dev", "no train", "latin-1", "labels", "batch size"],
)
def test_bad_files_and_keys_that_do_not_fit_them_are_refused_by_name(words, files, told, tmp_path):
    data, line = refused_rows(tmp_path, *words, **files)
    assert re.match(told.replace("{data}", str(data)), line)


def test_an_option_without_text_and_a_template_with_an_unknown_field_are_refused_by_row(tmp_path):
    row = json.dumps({"question": "What?", "options": ["bland", " "], "label": 0})
    files = dict.fromkeys(("train", "dev", "test"), row)
    data, line = refused_rows(tmp_path / "a", "task=jsonl_choice", **files)
    assert line.startswith(f"Invalid options at {data / 'train.jsonl'}:1: ['bland', '']. Must ")
    data, line = refused_rows(tmp_path / "b", "task=jsonl_choice", 'task.template="{query}"', **files)
    assert line.startswith(f"Invalid row at {data / 'train.jsonl'}:1: no 'query'. Must ")


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
