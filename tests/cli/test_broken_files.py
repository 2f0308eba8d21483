"""Files that a run, a multirun or a person left broken: each is named in one line, and the rest is used."""

import json
import os

import pytest
from omegaconf import OmegaConf

from hydra_plugins.zo_run_sweeps import SweepSource
from tests.cli.helpers import zo_run
from tests.made_results import result
from zo_runner import cli
from zo_runner.config import yaml_files
from zo_runner.errors import UserError
from zo_runner.records.run_directory import RunDirectory


def leave(root, number):
    """A finished run's folder."""
    run = RunDirectory(root / "t" / "m" / "ar1zo" / f"s{number}-abc{number}")
    run.start("job: train\nrank: 8\n", {})
    run.finish(result(f"abc{number}", seed=number))
    return run.path


@pytest.mark.parametrize("text", [b"\xff", b"job: [", b"- train\n", b"", b"!!python/name:os.system", b"[" * 1200])
def test_a_run_whose_config_yaml_is_broken_is_named_and_left_out_of_the_table(text, tmp_path):
    _, broken = leave(tmp_path, 0), leave(tmp_path, 1)
    (broken / "config.yaml").write_bytes(text)
    ended = zo_run("job=table", f"runtime.root={tmp_path}")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith(f"zo-run: Invalid {broken / 'config.yaml'}: ")
    assert line.endswith(". Must be a YAML file of keys and values. The run is left out.")
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").count("ar1zo") == 1


def test_a_broken_note_of_a_multirun_is_named_and_the_others_make_the_table(tmp_path, capsys, monkeypatch):
    """Hydra would swallow an exception there, and the table and the exit code with it."""
    monkeypatch.setattr(cli, "_exit_code", 0)
    note = {"job": 0, "overrides": [], "run": str(leave(tmp_path, 0)), "error": None}
    lines = [json.dumps(note), json.dumps({**note, "run": 3}), "[" * 100_000, json.dumps(note)[:30]]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    cli.TableAtEnd().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    told = capsys.readouterr()
    sentence = "is no note of a job; what it said is left out."
    assert told.err.splitlines() == [f"zo-run: {tmp_path / 'jobs.jsonl'}:{number} {sentence}" for number in (2, 3, 4)]
    assert "| ar1zo" in told.out
    assert cli._exit_code == 1


def test_a_broken_sweep_is_refused_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_plugins.zo_run_sweeps.HOME", tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("sweep: {scales: [", encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"^Invalid {tmp_path}/sweeps/mine\.yaml: while parsing .* Must be a YAML file of keys"
    ):
        SweepSource("zo-run", "sweeps://").load_config("sweeps/mine")


def test_a_pipe_is_no_file_of_keys(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml: no file\. Must be a YAML file of keys and values\.$"):
        yaml_files.read(tmp_path / "config.yaml")


def test_a_message_is_one_line_of_a_length_that_can_be_read(capsys):
    cli.complain("Invalid text: a\nb\x1b[2J\ud800é±. Must be y.")
    cli.complain("x" * 100_000 + ". Must be y.")
    one, two = capsys.readouterr().err.splitlines()
    assert one == r"zo-run: Invalid text: a\nb\x1b[2J\ud800é±. Must be y."
    assert len(two) < 1_300
    assert two.endswith(". Must be y.")
