"""job=replay: the parameters of a run from its journal, and what it refuses. test_resume.py has every method."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from tests.cli.helpers import SMALL, read_json, the_run, zo_run
from zo_runner.training import checkpoint


def test_a_run_that_was_cut_off_can_be_replayed_to_its_checkpoint_and_beyond(cut_off):
    _, run, _ = cut_off
    ended = zo_run("job=replay", f"run={run}", "step=8")
    assert ended.out.startswith("replayed 8 steps in ")
    assert f" s from {size_of(run, 8) / 1000:.1f} kB of journal, 0.1 kB of them numbers; " in ended.out
    assert f"; bit for bit what {checkpoint.NAME} holds; {run}/replay/step-8\n" in ended.out
    beyond = zo_run("job=replay", f"run={run}")
    assert "replayed 9 steps" in beyond.out
    assert "the run has saved nothing at this step to compare with" in beyond.out


def size_of(run, lines):
    return sum(len(line) for line in (run / "journal.jsonl").read_bytes().splitlines(keepends=True)[:lines])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    assert zo_run(*SMALL, "budget.queries=8", "rank=2", f"runtime.root={root}").code == 0
    return the_run(root)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / made.name)


def test_step_0_is_the_initialisation(run):
    assert zo_run("job=replay", f"run={run}", "step=0").code == 0
    adapter = load_file(run / "replay" / "step-0" / "adapter_model.safetensors")
    assert all(tensor.any() == ("lora_A" in name) for name, tensor in adapter.items())


def test_what_is_not_as_the_run_has_it_is_said_in_numbers(run):
    file = run / "adapter" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1  # of the last number the lowest bit but seven of its exponent
    file.write_bytes(content)
    ended = zo_run("job=replay", f"run={run}")
    assert ended.code == 0
    assert " from what adapter/ holds; bit for bit what best/ holds; " in ended.out


def test_other_software_and_devices_are_named(run):
    meta = read_json(run / "meta.json")
    meta |= {"device": "A card", "packages": meta["packages"] | {"torch": "1.0", "peft": "0.1"}}
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    ended = zo_run("job=replay", f"run={run}")
    assert ended.code == 0
    assert ended.err.startswith("zo-run: warning: the run began with torch 1.0 (now ")
    assert "peft 0.1 (now " in ended.err
    assert "device A card (now cpu): last bits can differ" in ended.err


def another_model(run):
    meta = read_json(run / "meta.json")
    meta["identity"]["model"]["path"] = "sha256:0"
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def a_changed_slope(run):
    file = run / "journal.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text(lines[0].replace('"slopes": [', '"slopes": [1') + "".join(lines[1:]), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (None, ("step=5",), "Invalid step: 5. Must be from 0 to 4, the steps of the run's journal."),
        (None, ("step=-1",), "Invalid step: -1. Must be an integer >= 0"),
        (lambda run: (run / "config.yaml").unlink(), (), "Must be the folder of a run, with its config.yaml."),
        (lambda run: (run / "journal.jsonl").unlink(), (), "journal.jsonl: no file."),
        (another_model, (), "Must be a run of the model that now lies at pocket_opt."),
        (a_changed_slope, (), "Line 1 of "),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(change, words, message, run):
    if change is not None:
        change(run)
    ended = zo_run("job=replay", f"run={run}", *words)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert message in ended.err
    assert not (run / "replay").exists()


def test_gradients_are_in_no_journal(tmp_path):
    assert zo_run(*SMALL, "method=fo_sgd", "budget.queries=6", f"runtime.root={tmp_path}").code == 0
    ended = zo_run("job=replay", f"run={the_run(tmp_path)}")
    assert ended.code == 1
    assert "Must be a run of a zeroth-order method: gradients are not in the journal." in ended.err


def test_a_replay_needs_a_run():
    ended = zo_run("job=replay")
    assert (ended.code, ended.err) == (
        1,
        "zo-run: error: job=replay needs a run: zo-run job=replay run=DIR step=N.\n",
    )
