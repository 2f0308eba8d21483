"""Every file of a run directory, broken: bytes spoiled, values altered, something else in its place.

Contract: what is broken is refused in one line, or counts as not there, so that the run is made anew; what is accepted
says the same as the honest file.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from tests.faults.fuzz_config import SMALL, configuration
from tests.faults.fuzz_kinds import Kind, accepted, altered, dumped, spoiled
from zo_runner import cli
from zo_runner.errors import Fault
from zo_runner.jobs import dispatch
from zo_runner.jobs.sweeps import outputs
from zo_runner.methods import MeZO
from zo_runner.records import journal, locks
from zo_runner.records.result import RunResult, TrainResult, read_result
from zo_runner.records.run_directory import RunDirectory
from zo_runner.reporting.figures import sweep_figures
from zo_runner.reporting.tables import tables
from zo_runner.training import checkpoint

TINY = (*SMALL, "task.num_train=16", "task.num_dev=8", "task.num_test=8", "rank=2")
_FILES = ("result.json", "config.yaml", "meta.json", "metrics.jsonl", "journal.jsonl", "adapter", "best")
ODD = ("missing", "empty", "folder", "pipe", "loop", "endless", "dangling")

# What stands in the place of a file: other bytes, or something that is no file.
Content = bytes | str


def kinds(folder: Path) -> Iterator[Kind]:
    """Every file of a run but its parameters.

    Args:
        folder: where the runs are made.
    """
    cfg = configuration(*TINY, f"runtime.root={folder}")
    run, honest, _ = dispatch.carry_out(cfg, (), wait=False)
    assert isinstance(honest, TrainResult)
    whole = {name: (run / name).read_bytes() for name in _FILES if (run / name).is_file()}

    def kind(name: str, file: str, check: Callable[[Path, Any], bool], cases: Any, share: float = 1.0) -> Kind:
        return Kind(f"run, {name}", cases, partial(in_place, run / file, check), share)

    def broken(file: str) -> st.SearchStrategy[Content]:
        return st.one_of(spoiled(whole[file]), spoiled(whole[file]), st.sampled_from(ODD))

    yield kind("result.json", "result.json", partial(_result, cfg, honest), broken("result.json"))
    values = altered(json.loads(whole["result.json"])).map(as_json)
    yield kind("result.json in a table", "result.json", partial(_in_table, run, honest), values)
    yield kind("metrics.jsonl", "metrics.jsonl", _metrics, broken("metrics.jsonl"))
    rows = [json.loads(line) for line in whole["metrics.jsonl"].splitlines()]
    events = altered(rows).map(lambda rows: b"".join(map(as_json, rows)) if isinstance(rows, list) else as_json(rows))
    yield kind("metrics.jsonl, values", "metrics.jsonl", _metrics, events)
    figures = partial(_figures, cfg, honest)
    yield kind("metrics.jsonl in a figure", "metrics.jsonl", figures, events, 0.02)
    lines = list(journal.read(run / journal.NAME, run.name.rsplit("-", 1)[-1]))
    yield kind("journal.jsonl", journal.NAME, partial(_journal, lines), broken(journal.NAME))
    # Not in the run's folder, which is finished and would lose it.
    cut_off = folder / checkpoint.NAME
    checkpoint.save(cut_off, MeZO([torch.ones(4)], lr=0.1, eps=0.1), {"run_id": "a", "steps": 0})
    whole[checkpoint.NAME] = cut_off.read_bytes()
    check = partial(in_place, cut_off, partial(_checkpoint, checkpoint.load(cut_off)))
    yield Kind("run, checkpoint.safetensors", broken(checkpoint.NAME), check)
    yield kind("meta.json", "meta.json", _meta, broken("meta.json"))
    values = altered(json.loads(whole["meta.json"])).map(as_json)
    yield kind("meta.json, values", "meta.json", _meta, values)
    places = st.tuples(st.sampled_from(_FILES), st.sampled_from(ODD))
    yield Kind("run, something else in its place", places, partial(_odd, cfg, run, honest), 0.2)
    yield Kind("run, its lock", st.sampled_from(ODD) | st.binary(max_size=9), partial(_lock, run), 0.2)
    notes = [{"job": i, "overrides": ["rank=2"], "run": str(run), "error": None} for i in range(2)]
    yield Kind(
        "multirun, jobs.jsonl", spoiled(b"".join(map(as_json, notes))), partial(_noted, folder / "multirun"), 0.5
    )


# Something in the place of a file


def put(file: Path, content: Content) -> None:
    """Put bytes, or something that is no file, in the place of a file or a folder."""
    clear(file)
    match content:
        case bytes():
            file.write_bytes(content)
        case "empty":
            file.touch()
        case "folder":
            file.mkdir()
            (file / "inside").touch()
        case "pipe":
            os.mkfifo(file)
        case "loop":
            file.symlink_to(file)
        case "endless":
            file.symlink_to("/dev/zero")
        case "dangling":
            file.symlink_to(file.parent / "nowhere")


def clear(file: Path) -> None:
    """Remove what is there, whatever it is."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


def in_place(file: Path, check: Callable[[Path, Any], bool], content: Content) -> bool:
    """Check what comes of a file's other content, and put it back."""
    whole = file.read_bytes()
    put(file, content)
    try:
        return check(file, content)
    finally:
        put(file, whole)


def as_json(value: Any) -> bytes:
    """One line."""
    return f"{dumped(value)}\n".encode()


# result.json


def _result(cfg: DictConfig, honest: TrainResult, file: Path, content: Content) -> bool:
    found = None
    with contextlib.suppress(Fault):
        found = read_result(file)
    assert found is None or found == honest, "another result was accepted"
    kept = [run for run, _ in _listed(file.parent)]
    try:
        path, result, cached = _carried_out(cfg, honest)
    except Fault:
        assert found is None, "the honest result was refused"
        return False
    assert cached == (found is not None)
    assert path in kept or not cached
    assert result == honest
    return cached


def _listed(run: Path) -> list[tuple[Path, TrainResult]]:
    results, unreadable = tables.gather([run])
    assert len(results) + len(unreadable) == 1
    return [(run, result) for result in results]


def _carried_out(cfg: DictConfig, honest: TrainResult) -> tuple[Path, RunResult, bool]:
    """The same command again. A run that is made anew begins as every run does, and ends as the first time."""

    def execute(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> RunResult:
        kept = {name: (directory.path / name).read_bytes() for name in _FILES if (directory.path / name).is_file()}
        saved = {name: directory.path.parent / name for name in ("adapter", "best")}
        for name, aside in saved.items():
            if (directory.path / name).is_dir():
                shutil.copytree(directory.path / name, aside)
        directory.start(OmegaConf.to_yaml(cfg, resolve=True), {})
        for name, data in kept.items():
            if name != "result.json":
                (directory.path / name).write_bytes(data)
        for name, aside in saved.items():
            if aside.exists():
                shutil.move(aside, directory.path / name)
        directory.finish(honest)
        return honest

    with mock.patch.object(dispatch, "_executor", return_value=execute):
        return dispatch.carry_out(cfg, (), wait=False)


def _in_table(run: Path, honest: TrainResult, file: Path, content: Content) -> bool:
    results, _ = tables.gather([run])
    others = [replace(honest, run_id=f"other{i}", seed=i) for i in (1, 2)]
    made, refused = tables.build([*results, *others])
    text = tables.write(made, refused, run.parent / "tables")
    assert text or refused
    return bool(results)


# Logs


def _metrics(file: Path, content: Content) -> bool:
    found = [point for key in ("dev/loss", "dev/accuracy") for point in sweep_figures.progress([file.parent], key)]
    assert all(point.mean - point.mean == 0 and point.x - point.x == 0 for point in found), "a point that is nowhere"
    return bool(found)


def _figures(cfg: DictConfig, honest: TrainResult, file: Path, content: Content) -> bool:
    run = file.parent
    row = sweep_figures.Curve("ar1zo", "ar1zo", 2, {}, "t", "m", [honest], [run], diverged=0, missing=0)
    made = sweep_figures.figures([row], run.parent / "figures", ("loss_queries", "accuracy_queries"))
    assert len(made) == 4
    return True


def _journal(honest: list[journal.Line], file: Path, content: Content) -> bool:
    found: list[journal.Line] = []
    whole = accepted(lambda: found.extend(journal.read(file, RunDirectory(file.parent).run_id)), file.name)
    assert found == honest[: len(found)], "another journal was accepted"
    return whole


def _checkpoint(honest: tuple[dict[str, Any], checkpoint.Tensors], file: Path, content: Content) -> bool:
    found: list[tuple[dict[str, Any], checkpoint.Tensors]] = []
    whole = accepted(lambda: found.append(checkpoint.load(file)), file.name)
    for state, tensors in found:
        assert state == honest[0], "another state was accepted"
        assert tensors.keys() == honest[1].keys(), "other tensors were accepted"
        assert all(tensors[name].equal(honest[1][name]) for name in tensors), "other numbers were accepted"
    return whole


def _meta(file: Path, content: Content) -> bool:
    return all(isinstance(text, str) for pair in outputs._versions(file.parent) for text in pair)


# The folder, its lock, a multirun


def _odd(cfg: DictConfig, run: Path, honest: TrainResult, case: tuple[str, str]) -> bool:
    name, content = case
    aside = run.parent / "aside"
    shutil.copytree(run, aside)
    put(run / name, content)
    try:
        try:
            _, result, cached = _carried_out(cfg, honest)
        except Fault:
            assert name == "result.json", "an honest result was refused"
            return False
        assert result == honest == read_result(run / "result.json")
        assert cached == (name != "result.json"), "a run is finished when its result is there"
        return cached
    finally:
        clear(run)
        shutil.move(aside, run)


def _lock(run: Path, content: Content) -> bool:
    file = locks.lock_file(run.parent, run.name)
    put(file, content)
    before = (run / "result.json").read_bytes()

    def held() -> None:
        assert not locks.is_held(file)
        with locks.hold(file):
            assert locks.is_held(file)

    try:
        return accepted(held, file.name)
    finally:
        assert (run / "result.json").read_bytes() == before
        clear(file)


def _noted(folder: Path, content: Content) -> bool:
    folder.mkdir(exist_ok=True)
    put(folder / "jobs.jsonl", content)
    err = io.StringIO()
    cfg = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    with (
        mock.patch.object(cli, "_exit_code", 0),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
    ):
        cli.TableAtEnd().on_multirun_end(cfg)
        assert cli._exit_code or "is no note" not in err.getvalue(), "trouble that the exit code does not show"
        return not cli._exit_code
