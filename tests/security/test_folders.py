"""A run writes below runtime.root, in its own folder, with the permissions that a person gives by umask."""

import os
import stat

import pytest

from tests import made_results
from tests.cli.helpers import SMALL, configure, the_run, zo_run
from zo_runner.config import validation
from zo_runner.errors import Fault, UserError
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.locks import hold, is_held
from zo_runner.records.run_directory import RunDirectory

NAMES = [
    *("../x", "../../x", "/x", "/", "", ".", "..", "...", "a/b", "a/../b", "a\\b", "~", "~root", ".hidden", "-rf"),
    *(
        "a\0b",
        "a\n",
        "\na",
        "a b",
        "a.",
        "a..",
        "x" * 101,
        "x" * 5000,
        "é",
        "a\u202eb",
        "a:b",
        "*",
        "$HOME",
        "`id`",
        "None\t",
    ),
]


@pytest.mark.parametrize("key", ["task.name", "model.name", "method.name"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_a_name_is_that_of_one_folder_or_refused(key, name):
    cfg = configure("task=jsonl")
    cfg[key.split(".")[0]]["name"] = name
    with pytest.raises(
        UserError, match=rf"\AInvalid {key}: .*\. Must be letters, digits, dots, dashes and underscores"
    ):
        validation.check(cfg)


@pytest.mark.parametrize("name", ["a", "x" * 100, "opt_1.3b", "qwen3-8B", "_", "3"])
def test_other_names_are_allowed(name):
    validation.check(configure(f"model.name={name}"))


@pytest.mark.parametrize("word", ["sweep.name=../../x", "sweep.name=/x", "scale=../x"])
@pytest.mark.parametrize("job", [["-m"], ["job=report"]], ids=["sweep", "report"])
def test_names_of_a_sweep_are_such_names_too(word, job, tmp_path):
    root = tmp_path / "a" / "b" / "runs"
    ended = zo_run(*job, "+sweeps=cost", word, f"runtime.root={root}", "tracker=none")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"zo-run: error: Invalid {word.split('=')[0]}: ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Links: whoever may write below runtime.root must not get a run to empty what lies elsewhere


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with what a run would remove from its own."""
    folder = tmp_path / "elsewhere"
    (folder / "adapter").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl", "error.txt", "adapter/kept"):
        (folder / name).write_text("mine", encoding="utf-8")
    return folder


def _untouched(folder):
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {
        *("adapter", "adapter/kept", "config.yaml", "error.txt", "metrics.jsonl"),
    }
    assert all(path.read_text(encoding="utf-8") == "mine" for path in folder.rglob("*") if path.is_file())


def _run_directory(tmp_path):
    return RunDirectory(tmp_path / "runs" / "task" / "model" / "method" / "s0-0123456789")


@pytest.mark.parametrize(
    "part", ["runs/task", "runs/task/model", "runs/task/model/method", "runs/task/model/method/s0-0123456789"]
)
def test_a_run_does_not_follow_a_link_out_of_the_root(part, tmp_path, elsewhere):
    place = tmp_path / part
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    directory = _run_directory(tmp_path)
    with pytest.raises(UserError, match=r"\AInvalid run directory: .* Must be no link below "):
        directory.start("config", {})
    _untouched(elsewhere)


@pytest.mark.parametrize("name", ["metrics.jsonl", "journal.jsonl"])
def test_a_run_does_not_go_on_in_a_file_that_is_a_link(name, tmp_path, elsewhere):
    directory = _run_directory(tmp_path)
    directory.start("config", {})
    (directory.path / name).symlink_to(elsewhere / "config.yaml")
    with pytest.raises(UserError, match=rf"\AInvalid run directory: .* Must be without links such as {name}"):
        directory.go_on(0)
    _untouched(elsewhere)


def test_a_link_above_a_saved_folder_is_replaced_and_not_followed(tmp_path, elsewhere):
    directory = _run_directory(tmp_path)
    directory.start("config", {})
    (directory.path / "replay").symlink_to(elsewhere)
    directory.replace("replay/adapter", lambda folder: (folder / "a").write_text("new", encoding="utf-8"))
    assert (directory.path / "replay" / "adapter" / "a").is_file()
    _untouched(elsewhere)


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    _run_directory(tmp_path).start("config", {})
    assert list((tmp_path / "scratch").rglob("config.yaml"))


def test_links_in_a_run_directory_are_replaced_and_not_followed(tmp_path, elsewhere):
    directory = _run_directory(tmp_path)
    directory.path.mkdir(parents=True)
    for name in ("config.yaml", "meta.json", "metrics.jsonl", "journal.jsonl", "error.txt", "adapter", "best", "wandb"):
        (directory.path / name).symlink_to(elsewhere / name if (elsewhere / name).exists() else elsewhere)
    directory.start("config", {})
    directory.log({"a": 1})
    directory.finish(made_results.result("a"))
    _untouched(elsewhere)
    assert not any(path.is_symlink() for path in directory.path.iterdir())


@pytest.mark.parametrize("target", ["adapter", "nowhere"])
def test_a_link_in_the_place_of_a_saved_folder_is_replaced_and_not_followed(target, tmp_path, elsewhere):
    directory = _run_directory(tmp_path)
    directory.start("config", {})
    link = directory.path / "best"
    link.symlink_to(elsewhere / target)
    directory.replace("best", lambda folder: (folder / "a").write_text("new", encoding="utf-8"))
    assert [path.name for path in link.iterdir()] == ["a"]
    assert not link.is_symlink()
    link.rename(directory.path / "other")
    link.symlink_to(elsewhere / target)
    directory.remove("best")
    assert not link.is_symlink()
    _untouched(elsewhere)


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path, elsewhere):
    (tmp_path / "table.md").symlink_to(elsewhere / "config.yaml")
    write_atomic(tmp_path / "table.md", "new")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "new"
    _untouched(elsewhere)


def test_a_link_in_the_place_of_a_lock_empties_nothing(tmp_path, elsewhere):
    lock = tmp_path / ".0123456789.lock"
    lock.symlink_to(elsewhere / "config.yaml")
    for use in (is_held, lambda file: hold(file).__enter__()):
        with pytest.raises(Fault, match=r"\ACannot write .*\.0123456789\.lock: .*\Z"):
            use(lock)
    _untouched(elsewhere)


# Permissions


@pytest.fixture(params=[0o077, 0o022, 0o002, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _modes(folder):
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_what_records_writes_has_the_permissions_of_the_umask(umask, tmp_path):
    directory = _run_directory(tmp_path)
    directory.start("config", {})
    directory.log({})
    directory.replace("best", lambda folder: (folder / "a").write_text("", encoding="utf-8"))
    directory.finish(made_results.result("a"))
    with hold(tmp_path / ".0.lock"):
        modes = _modes(tmp_path)
    folders = {name for name in modes if (tmp_path / name).is_dir()}
    assert {modes[name] for name in folders} == {0o777 & ~umask}
    assert {mode for name, mode in modes.items() if name not in folders} == {0o666 & ~umask}


@pytest.mark.parametrize("umask", [0o077, 0o022], indirect=True, ids=oct)
def test_no_file_of_a_whole_run_has_more_or_less(umask, tmp_path):
    ended = zo_run(*SMALL, f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 0, ended.err
    run = the_run(tmp_path)
    assert {name: mode for name, mode in _modes(run).items() if (run / name).is_dir() and mode != 0o777 & ~umask} == {}
    assert {name: mode for name, mode in _modes(run).items() if (run / name).is_file() and mode != 0o666 & ~umask} == {}
