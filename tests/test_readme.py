"""Every command and every example of the README and of docs/tasks.md runs as it is written."""

import json
import re
import shlex
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.cli.helpers import zo_run

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text(encoding="utf-8")
TASKS = (HOME / "docs" / "tasks.md").read_text(encoding="utf-8")
# Small enough for a test; the seeds and ranks of a multirun stay as they are written.
SMOKE = ["budget=smoke", "budget.queries=4", "tracker=none", "noise=none"]
POCKET = ["task.num_train=16", "task.num_dev=8", "task.num_test=8"]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    return [line for block in blocks("sh", text) for line in block.splitlines() if line.startswith("zo-run")]


COMMANDS = commands(README)
# A name alone on its line, and what stands in the file of that name.
FILES = re.findall(r"^`([^`]+)`:\n\n```\w+\n(.*?)```", TASKS, re.DOTALL | re.MULTILINE)


def run(*words: str) -> None:
    ended = zo_run(*words)
    assert ended.code == 0, ended.err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "my_data"
    data.mkdir()
    rows = [{"text": f"The plot was {word}.", "label": label} for label, word in enumerate(("dull", "witty"))] * 8
    for name in ("train", "dev", "test"):
        (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def test_readme_has_commands() -> None:
    assert len(COMMANDS) >= 8


def by_speed(commands: list[str]) -> list[ParameterSet]:
    """Multiruns, sweeps, probes and calibrations take a while; of the others, one of each kind is in every suite."""
    long = ("-m ", "+sweeps=", "job=probe", "=auto", "task=csv")
    return [pytest.param(c, marks=pytest.mark.slow if any(word in c for word in long) else ()) for c in commands]


@pytest.mark.parametrize("command", by_speed(COMMANDS))
def test_command_runs(command: str, folder: Path) -> None:
    words = shlex.split(command, comments=True)[1:]
    if "job=table" in words:
        run(*SMOKE, *POCKET)
        run(*words)
        assert (folder / "runs" / "table.md").is_file()
    elif "job=replay" in words:
        run(*SMOKE, *POCKET)
        (made,) = (folder / "runs").glob("*/*/*/*/result.json")
        run(*(word.replace("DIR", str(made.parent)) for word in words))
        assert (made.parent / "replay" / "step-2" / "adapter_model.safetensors").is_file()
    elif "job=report" in words or "sweep.dry_run=true" in words:
        run(*words, "tracker=none")
    elif any(word.startswith(("model=opt", "model=qwen3")) for word in words):
        run("--cfg", "job", *words)  # the checkpoint is on the Hub: composed, not run
    else:
        small = [*SMOKE, *([] if "task=jsonl" in words else POCKET)]
        if "method.lr=auto" in words:
            small += ["budget.queries=20", "calibration.probes=2"]
        if any(word.startswith("+sweeps=") for word in words):  # two of its rows, at one rate and one seed
            small += ["method=lora_zo,ar1zo", "rank=4", "seed=0", "method.lr=1e-3", "method.lr_scale=1"]
        if "job=probe" in words:
            small = ["tracker=none", "probe.directions=2", "probe.inits=1", *POCKET]
        run(*words, *small)
        assert list((folder / "runs").glob("*/*/*/*/result.json"))


@pytest.fixture
def documented_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that docs/tasks.md shows; a folder's dev and test are like its train."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES:
        for split in ("train", "dev", "test") if "train" in name else ("",):
            file = tmp_path / name.replace("train", split)
            file.parent.mkdir(exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return tmp_path


def test_the_documentation_of_tasks_shows_each_family_as_jsonl_and_csv() -> None:
    shown = {word.removeprefix("task=") for line in commands(TASKS) for word in line.split() if "task=" in word}
    assert {"jsonl", "csv", "jsonl_choice", "csv_choice", "jsonl_generation", "csv_generation", "text"} <= shown
    assert len(FILES) == 7


@pytest.mark.parametrize("command", by_speed(commands(TASKS)))
def test_a_documented_task_runs(command: str, documented_files: Path) -> None:
    words = shlex.split(command, comments=True)[1:]
    pocket = any(word.startswith("task=pocket") for word in words)
    small = [*SMOKE, "batch_size=2", *(POCKET if pocket else [])]
    if "job=evaluate" in words:
        small = ["tracker=none", *POCKET]
    run(*words, *small)
    assert list((documented_files / "runs").glob("*/*/*/*/result.json"))


def test_python_example_trains() -> None:
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(example, names)
    assert names["opt"].steps == 10  # type: ignore[attr-defined]  # exec gives objects
