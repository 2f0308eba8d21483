"""Run directories that were tampered with, cut short or mixed up: each is refused or marked, and never averaged.

Every test writes real folders, doctors them, finds and reads them as the command line does, and makes the tables. Three
honest seeds score 0.50, 0.60 and 0.70, a doctored run scores 0.99: no number of the table may come near it.
"""

import json
import math
import shutil
from functools import reduce
from operator import getitem

import pandas as pd
import pytest

from tests.made_results import hole, put, result
from zo_runner.records.json_files import checksum, encode
from zo_runner.records.result import SCHEMA, ProbeResult
from zo_runner.records.run_directory import RunDirectory, find_runs
from zo_runner.reporting.tables import tables
from zo_runner.reporting.tables.tables import Protocol

HONEST = (0.5, 0.6, 0.7)
LIE = 0.99


def leave(root, made):
    """Write a run's folder as a run does."""
    folder = root / made.task / made.model / made.method / f"s{made.seed}-{made.run_id}"
    directory = RunDirectory(folder)
    directory.start("seed: 0\n", {})
    directory.log({"step": 0, "queries": 0, "dev/accuracy": 0.5})
    directory.finish(made)
    return folder


def doctor(folder, *removed, **changes):
    """Write a result.json without some keys and with other values under some, with __ for dots; its checksum fits."""
    file = folder / "result.json"
    made = json.loads(file.read_text(encoding="utf-8"))
    del made["checksum"]
    for key, value in changes.items():
        put(made, key.replace("__", "."), encode(value))
    for key in removed:
        *parents, last = key.split(".")
        del reduce(getitem, parents, made)[last]
    file.write_text(json.dumps({**made, "checksum": checksum(made)}), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """Three honest seeds of one configuration, in real folders."""
    for seed, accuracy in enumerate(HONEST):
        leave(tmp_path / "runs", result(f"honest{seed}", seed=seed, accuracy=accuracy))
    return tmp_path / "runs"


@pytest.fixture
def honest(root):
    """The folder of the last honest seed."""
    return root / "t" / "m" / "ar1zo" / "s2-honest2"


class Made:
    """Tables of the folders below a root. The doctored score enters no mean, and makes none of them NaN."""

    def __init__(self, root, out, holes=(), protocol=None):
        self.results, self.unreadable = tables.gather(find_runs(root))
        made, self.refused = tables.build([*self.results, *holes], protocol)
        self.text = tables.write(made, self.refused, out, protocol)
        self.lines = pd.read_csv(out / "table.csv").to_dict("records") if (out / "table.csv").exists() else []
        for line in self.lines:
            for name in ("zero_shot_dev", "dev_best", "test_best", "test_last"):
                assert line["n"] == 0 or line[name] <= max(HONEST)


@pytest.fixture
def outcome(root, tmp_path):
    """Makes the tables."""
    return lambda holes=(), **protocol: Made(root, tmp_path / "out", holes, Protocol(**protocol))


def test_honest_folders_make_a_table(outcome):
    made = outcome()
    assert (made.refused, made.unreadable) == ([], [])
    (line,) = made.lines
    assert (line["n"], line["test_best"]) == (3, pytest.approx(0.6))
    assert (line["diverged"], line["invalid"], line["missing"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("identity.budget.queries", 80, "budget.queries (40, 80)"),
        ("provenance.model_revision", "def", "provenance.model_revision, though they were asked for the same (run lie"),
        ("provenance.data_files", {"other.jsonl": "0" * 64}, "provenance.data_files.other.jsonl"),
        ("queries.train", 4000, "spent more than its budget (run lie: 4002 of 40 queries)"),
    ],
)
@pytest.mark.parametrize("changes", [{"rank": 4}, {"seed": 3}], ids=["another row", "another seed"])
def test_what_is_not_equal_ground_is_refused_by_name(root, outcome, key, value, told, changes):
    folder = leave(root, result("lie", accuracy=LIE, **changes))
    doctor(folder, **{key.replace(".", "__"): value})
    made = outcome()
    assert (made.lines, made.text) == ([], "")
    (sentence,) = made.refused
    assert told in sentence


@pytest.mark.parametrize(("run_id", "told"), [("copied", "copied, honest2"), ("honest2", "honest2")])
def test_a_seed_that_is_there_twice_is_not_averaged(honest, outcome, run_id, told):
    """A folder copied under another name, its score changed, and its run's name too or not."""
    copy = honest.with_name("s2-copied")
    shutil.copytree(honest, copy)
    doctor(copy, run_id=run_id, metrics__test__best__accuracy=LIE)
    made = outcome()
    assert made.lines == []
    assert f"seed 2 is there 2 times (runs {told})" in made.refused[0]
    made = outcome(allow_unmatched=True)
    (line,) = made.lines
    assert (line["n"], line["invalid"], line["unmatched"]) == (2, 2, True)
    assert line["test_best"] == pytest.approx(0.55)
    assert f"seed 2 is there 2 times (runs {told})" in made.text


@pytest.mark.parametrize("how", ["no folder", "no result.json", "unfinished"])
def test_a_missing_result_is_a_visible_hole(honest, outcome, how):
    if how == "no folder":
        shutil.rmtree(honest)
    elif how == "no result.json":
        (honest / "result.json").unlink()
    else:
        doctor(honest, status="interrupted", metrics={})
    made = outcome([hole("honest2", seed=2)])
    (line,) = made.lines
    assert (line["n"], line["missing"], line["test_best"]) == (2, 1, pytest.approx(0.55))
    assert "missing" in made.text


EARLIER = f'{{"schema": {SCHEMA - 1}}}'
BROKEN = ["null", "[]", '"done"', "{}", f'{{"schema": {SCHEMA}}}', EARLIER, "\x00", 0.0, 0.5, 0.99]


@pytest.mark.parametrize("content", BROKEN, ids=repr)
def test_a_result_that_is_cut_short_or_none_is_told_and_not_read(honest, outcome, content):
    file = honest / "result.json"
    whole = file.read_bytes()
    file.write_bytes(content.encode() if isinstance(content, str) else whole[: int(content * len(whole))])
    made = outcome([hole("honest2", seed=2)])
    (line,) = made.lines
    assert (line["n"], line["missing"], line["test_best"]) == (2, 1, pytest.approx(0.55))
    (sentence,) = made.unreadable
    assert str(honest) in sentence


REMOVED = object()
TYPES = [("seed", "2"), ("seed", True), ("identity", None), ("identity.method.name", 3), ("status", None), ("task", 1)]
TYPES += [("job", "training"), ("metric", None), ("metrics", []), ("metrics.dev.zero_shot.accuracy", None)]
TYPES += [("metrics.dev.best.loss", "0.99"), ("metrics.test.last.accuracy", True), ("queries.train", math.nan)]
TYPES += [("tokens", None), ("seconds.train", "fast"), ("provenance", None)]
MISSING = ["seed", "identity.method", "metrics", "queries", "queries.calibration", "metric", "seconds.step_median"]


@pytest.mark.parametrize(("key", "value"), [*TYPES, *((key, REMOVED) for key in MISSING)])
def test_a_missing_key_and_a_value_of_another_type_are_told_by_file_and_key_and_not_read(honest, outcome, key, value):
    if value is REMOVED:
        doctor(honest, key)
    else:
        doctor(honest, **{key.replace(".", "__"): value})
    made = outcome()
    assert made.lines[0]["n"] == 2
    (sentence,) = made.unreadable
    told = f"Missing key {key}." if value is REMOVED else f"Invalid {key}: {value!r}."
    assert f"{honest / 'result.json'}: {told}" in sentence


def test_other_jobs_are_left_out_without_a_word(root, outcome):
    known = {"job": "probe", "run_id": "probe", "model": "m", "task": "t", "seed": 3, "identity": {}, "status": "done"}
    spent = {"queries": {"probe": 2, "noise": 0}, "seconds": {"total": 1.0}}
    directory = RunDirectory(root / "t" / "m" / "probe" / "s3-probe")
    directory.start("", {})
    directory.finish(ProbeResult(**known, **spent, cells=1, report=""))
    made = outcome()
    assert (made.lines[0]["n"], made.unreadable) == (3, [])


@pytest.mark.parametrize("value", [math.nan, math.inf, 99.0], ids=repr)
def test_a_score_that_cannot_be_averaged_marks_its_run(root, outcome, value):
    doctor(leave(root, result("lie", seed=3, accuracy=LIE)), metrics__test__best__accuracy=value)
    made = outcome()
    (line,) = made.lines
    assert (line["n"], line["invalid"], line["test_best"]) == (3, 1, pytest.approx(0.6))
    assert "Invalid, and not averaged: ar1zo rank=8: run lie (seed 3) says done and has" in made.text


def test_a_table_over_many_doctored_folders_names_every_fault(root, honest, outcome):
    leave(root, result("b", rank=4, budget__queries=80))
    leave(root, result("c", rank=2, task__version=9))
    shutil.copytree(honest, honest.with_name("s2-twin"))
    doctor(honest.with_name("s2-twin"), run_id="twin")
    (sentence,) = outcome().refused
    for told in ("budget.queries (40, 80) and task.version (1, 9)", "seed 2 is there 2 times"):
        assert told in sentence
