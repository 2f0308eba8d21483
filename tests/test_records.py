"""The run directory on disk: whole files or none, and numbers that survive."""

import json
import math
import os
from contextlib import suppress
from unittest.mock import Mock

import pytest

from tests.made_results import result
from zo_runner.errors import Fault, UserError
from zo_runner.records import provenance, run_directory
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.json_files import decode, encode, read_lines
from zo_runner.records.result import SCHEMA, read_result, write_result
from zo_runner.records.run_directory import RunDirectory, find_runs, read_meta

HARD = {"a": [math.inf, -math.inf, {"b": math.nan}], "c": 1.5, "d": None, "e": "text", "f": True, "g": 3}


# write_atomic


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(broken, tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_atomic(file, "old")
    monkeypatch.setattr(os, broken, Mock(side_effect=OSError("disk full")))
    with pytest.raises(Fault, match=r"^Cannot write .*result.json: disk full\.$"):
        write_atomic(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_whole_new_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    file = tmp_path / "x.txt"
    write_atomic(file, "long text, é")
    calls = Mock(fsync=Mock(side_effect=os.fsync), replace=Mock(side_effect=os.replace))
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, getattr(calls, name))
    write_atomic(file, "short")
    assert [call[0] for call in calls.mock_calls] == ["fsync", "replace"]
    assert file.read_text(encoding="utf-8") == "short"
    assert list(tmp_path.iterdir()) == [file]


# JSON


def test_numbers_survive_the_way_to_disk_and_back():
    text = json.dumps(encode(HARD), allow_nan=False)
    back = decode(json.loads(text, parse_constant=pytest.fail))
    assert math.isnan(back["a"][2].pop("b"))
    assert back == {**HARD, "a": [math.inf, -math.inf, {}]}
    assert encode({"slopes": (0.1, math.inf)}) == {"slopes": [0.1, "inf"]}


def test_every_file_of_a_run_is_strict_json_and_each_row_is_on_disk_at_once(tmp_path):
    run = RunDirectory(tmp_path / "s0-abc")
    run.start("a: 1\n", {"x": math.inf})
    for number, row in enumerate(({"zo/fd_snr_db": math.inf, "train/loss": 0.1}, {"zo/fd_snr_db": math.nan}), 1):
        run.log(row)
        assert len(list(read_lines(run.path / "metrics.jsonl"))) == number
    run.finish(result("abc", fd_snr_db=-math.inf))
    texts = [file.read_text(encoding="utf-8") for file in run.path.glob("*.json")]
    for text in [*texts, *(run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]:
        json.loads(text, parse_constant=pytest.fail)
    first, second = read_lines(run.path / "metrics.jsonl")
    assert first == {"zo/fd_snr_db": math.inf, "train/loss": 0.1}
    assert math.isnan(second["zo/fd_snr_db"])
    assert run.result() == result("abc", fd_snr_db=-math.inf)


# RunDirectory


def test_a_start_removes_what_an_unfinished_run_left_and_nothing_else(tmp_path):
    run = RunDirectory(tmp_path / "s0-abc")
    run.start("first", {})
    run.log({"step": 0})
    run.close()
    for folder in ("best", "adapter", "wandb"):
        (run.path / folder / "deep").mkdir(parents=True)
    for name in ("error.txt", "metrics.jsonl", "result.json", "notes.md"):
        (run.path / name).write_text("mine", encoding="utf-8")
    run.start("second", {})
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "meta.json", "notes.md"}
    assert (run.path / "config.yaml").read_text(encoding="utf-8") == "second"


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    run = RunDirectory(tmp_path)
    run.replace("best", lambda folder: (folder / "one").write_text("1", encoding="utf-8"))
    run.replace("best", lambda folder: (folder / "two").write_text("2", encoding="utf-8"))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["two"]

    def fail(folder):
        (folder / "three").write_text("3", encoding="utf-8")
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        run.replace("best", fail)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("text", [None, '{"schema": 0}', '{"status": "done"}', f'{{"schema": {SCHEMA + 1}}}'])
def test_a_missing_result_and_one_of_another_schema_are_no_result(text, tmp_path):
    if text is not None:
        (tmp_path / "result.json").write_text(text, encoding="utf-8")
    assert read_result(tmp_path / "result.json") is None


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1', "[]", "null", f'{{"schema": {SCHEMA}}}', "\xff", "digit"])
def test_a_result_that_is_not_whole_or_was_changed_is_refused_by_file(text, tmp_path):
    file = tmp_path / "result.json"
    write_result(file, result("abc", accuracy=0.625))
    whole = file.read_bytes()
    assert read_result(file).score("test", "best") == 0.625
    file.write_bytes(whole.replace(b"0.625", b"0.925") if text == "digit" else text.encode("latin-1"))
    with pytest.raises(Fault, match=f"^{file} is cut off or was changed"):
        read_result(file)


def test_runs_are_found_in_a_fixed_order_and_only_where_runs_lie(tmp_path):
    for place in ("t/m/b/s1-x", "t/m/a/s0-y", "t/m", "t/m/a/s0-y/deeper"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "result.json").write_text("{}", encoding="utf-8")
    assert list(find_runs(tmp_path)) == [tmp_path / "t/m/a/s0-y", tmp_path / "t/m/b/s1-x"]


def test_a_root_is_made_and_left_empty_or_refused(tmp_path):
    run_directory.require_writable(tmp_path / "new" / "deeper")
    assert list((tmp_path / "new" / "deeper").iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"^Invalid runtime\.root: '.*file/below' \(Not a directory\)\."):
        run_directory.require_writable(tmp_path / "file" / "below")


def test_the_environment_names_versions_and_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/zo-run", "rank=4"])
    found = provenance.environment()
    assert found["argv"] == ["zo-run", "rank=4"]
    assert found["packages"]["zo-run"]
    assert set(found["packages"]) <= set(provenance.PACKAGES)
    assert found["started"].endswith("+00:00")


# What is broken


@pytest.fixture(params=["pipe", "folder", "endless", "loop", "deep"])
def broken(request, tmp_path):
    """Something in the place of a file: what cannot be read, or might be read for ever."""
    file = tmp_path / "s0-abc" / "broken"
    file.parent.mkdir()
    make = {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "endless": lambda: file.symlink_to("/dev/zero"),
        "loop": lambda: file.symlink_to(file),
        "deep": lambda: file.write_text("[" * 100_000, encoding="utf-8"),
    }
    make[request.param]()
    return file


def test_what_cannot_be_read_is_no_result_has_no_rows_and_is_no_meta(broken):
    with suppress(Fault):
        assert read_result(broken) is None
    with pytest.raises((OSError, UserError)):
        list(read_lines(broken))
    broken.rename(broken.parent / "meta.json")
    assert read_meta(broken.parent) == {}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b'{"a": 1}\n{"a"', ":2: '{\"a\"'. Must be one JSON object."),
        (b'{"a": 1}\n\n{"a": 2}\n', ":2: ''. Must be one JSON object."),
        (b"[1]\n", ":1: '[1]'. Must be one JSON object."),
        (b'{"a": 1}\n' + b"[" * 100_000, ":2: '[[["),
        (b"\xff\n", ": 'utf-8' codec can't decode byte 0xff"),
    ],
    ids=["torn", "blank", "no object", "deep", "no text"],
)
def test_a_line_that_is_no_row_is_refused_by_number(lines, told, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(lines)
    with pytest.raises(UserError) as refusal:
        list(read_lines(file))
    assert str(refusal.value).startswith(f"Invalid {file}{told}")
