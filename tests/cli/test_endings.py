"""Runs that do not end as planned: what is on disk, what the exit code says, and that the command can be repeated."""

import math
import signal

import pytest

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run
from zo_runner.records.run_directory import RunDirectory
from zo_runner.training import checkpoint
from zo_runner.training.interrupts import Terminated
from zo_runner.training.step import Stepper


def break_at(monkeypatch, step, error):
    """Let training raise `error` in the given step."""
    original = Stepper.step

    def breaking(stepper, *arguments):
        if stepper.method.steps == step:
            raise error
        return original(stepper, *arguments)

    monkeypatch.setattr(Stepper, "step", breaking)


@pytest.fixture
def command(tmp_path):
    return *SMALL, "budget.queries=12", "budget.eval_every=6", f"runtime.root={tmp_path}"


@pytest.mark.parametrize(("ending", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_an_interrupted_run_says_so_and_goes_on(ending, code, command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, 3, ending)
        ended = zo_run(*command)
    assert ended.code == code
    assert ended.err.splitlines() == ["zo-run: interrupted; run the same command again to continue"]
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert (result["status"], result["queries"]["train"]) == ("interrupted", 6)
    assert len(read_jsonl(run / "journal.jsonl")) == 3
    assert checkpoint.load(run / checkpoint.NAME)[0]["steps"] == 3

    (run / "adapter").mkdir()
    (run / "adapter" / "stale").touch()
    again = zo_run(*command)
    assert again.code == 0
    assert "cached" not in again.out
    assert the_run(tmp_path) == run
    assert read_json(run / "result.json")["status"] == "done"
    assert len(read_jsonl(run / "journal.jsonl")) == 6
    assert not (run / "adapter" / "stale").exists()
    (sitting,) = read_json(run / "meta.json")["resumed"]
    assert sitting["step"] == 3


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", ["describe", "finish"])
def test_a_signal_while_a_run_is_begun_or_closed_waits_until_it_can_be_told(name, command, tmp_path, monkeypatch):
    original = getattr(RunDirectory, name)

    def disturbed(*arguments):
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, name, disturbed)
        ended = zo_run(*command)
    assert ended.code == 130
    result = read_json(the_run(tmp_path) / "result.json")
    assert result["status"] == {"describe": "interrupted", "finish": "done"}[name]
    assert zo_run(*command).code == 0
    assert read_json(the_run(tmp_path) / "result.json")["queries"]["train"] == 12


def test_an_interruption_ends_a_multirun(command, tmp_path, monkeypatch):
    break_at(monkeypatch, 3, KeyboardInterrupt())
    ended = zo_run("-m", *command, "rank=2,4")
    assert ended.code == 130
    assert the_run(tmp_path)


def test_a_crash_is_recorded_and_the_run_can_be_repeated(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, 3, RuntimeError("the disk has melted"))
        ended = zo_run(*command)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "zo-run: error: RuntimeError: the disk has melted"
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert (result["status"], result["error"]) == ("failed", "RuntimeError: the disk has melted")
    assert (run / "error.txt").read_text(encoding="utf-8").startswith("Traceback")

    again = zo_run(*command)
    assert again.code == 0
    assert read_json(run / "result.json")["status"] == "done"
    assert not (run / "error.txt").exists()


def test_a_diverged_run_is_a_result_of_its_own(command, tmp_path):
    words = (*command, "method=mezo", "method.lr=1e30")
    ended = zo_run(*words)
    assert ended.code == 0, ended.err
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert result["status"] == "diverged"
    steps = len(read_jsonl(run / "journal.jsonl"))
    assert 1 <= steps < 6
    assert result["error"].endswith(f" at step {steps} (query {result['queries']['train']})")
    assert "last" not in result["metrics"]["test"]
    assert ": diverged; the " in ended.out
    before = (run / "result.json").stat().st_mtime_ns
    again = zo_run(*words)
    assert again.code == 0
    assert again.out == ended.out.replace(": diverged;", ": cached, diverged;")
    assert (run / "result.json").stat().st_mtime_ns == before


def test_a_result_that_is_not_as_it_was_written_is_refused_by_name(command, tmp_path):
    words = (*command, "budget.queries=4")
    assert zo_run(*words).code == 0
    file = the_run(tmp_path) / "result.json"
    text = file.read_text(encoding="utf-8")
    for changed in (text[:-3], text.replace('"rank": 8', '"rank": 9')):
        file.write_text(changed, encoding="utf-8")
        again = zo_run(*words)
        assert again.code == 1
        reason = "is cut off or was changed. Move its folder away to make the run again."
        assert again.err.splitlines() == [f"zo-run: error: {file} {reason}"]
        assert file.read_text(encoding="utf-8") == changed


def test_infinite_and_missing_readings_are_told_as_they_are(command, tmp_path):
    ended = zo_run(*command, "noise=none", "budget.queries=4")
    assert ended.code == 0
    assert "FD-SNR" not in ended.out
    assert set(read_json(the_run(tmp_path) / "result.json")["signal"]) == {"zo/signal"}


def test_injected_noise_lowers_the_ratio_to_what_was_injected(command, tmp_path):
    assert zo_run(*command, "noise=injected", "noise.std=0.1", "noise.repeats=64", "method.eps=1e-3").code == 0
    signal = read_json(the_run(tmp_path) / "result.json")["signal"]
    # sigma^2 / (2 eps^2), from 64 evaluations: within four standard errors, sqrt(2 / 63) each.
    assert signal["zo/noise"] == pytest.approx(0.1**2 / (2 * 1e-3**2), rel=4 * math.sqrt(2 / 63))
