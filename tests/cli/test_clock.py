"""A clock that goes backwards: nothing is told from it that a run or a sweep depends on."""

import datetime
import itertools
import time

import pytest

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run


class Stopped(datetime.datetime):
    """It is always the same instant."""

    @classmethod
    def now(cls, tz=None):
        return cls(2020, 1, 1, tzinfo=tz)


@pytest.fixture
def backwards(monkeypatch):
    """Every look at the clock on the wall is a day before the last."""
    days = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.6e9 - 86_400 * next(days))


def test_a_budget_of_seconds_ends_though_the_clock_goes_backwards(tmp_path, backwards):
    budget = ("budget.queries=null", "budget.seconds=0.2", "budget.eval_every=1000000")
    ended = zo_run(*SMALL, *budget, f"runtime.root={tmp_path}")
    assert (ended.code, ended.err) == (0, "")
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert result["status"] == "done"
    seconds = result["seconds"]
    assert min(seconds.values()) >= 0
    assert seconds["train"] + seconds["calibration"] >= 0.2
    assert seconds["total"] >= seconds["train"]
    told = [event["seconds"] for event in read_jsonl(run / "metrics.jsonl")]
    assert told == sorted(told)


def test_multiruns_of_the_same_instant_have_folders_of_their_own(tmp_path, monkeypatch, backwards):
    monkeypatch.setattr("hydra.core.utils.datetime", Stopped)
    for seed in (0, 1):
        ended = zo_run("-m", *SMALL, "budget.queries=2", f"seed={seed}", f"runtime.root={tmp_path}")
        assert ended.code == 0, ended.err
    folders = list((tmp_path / "sweeps").iterdir())
    assert len({folder.name.rsplit("-", 1)[0] for folder in folders}) == 1
    assert [len(read_jsonl(folder / "jobs.jsonl")) for folder in folders] == [1, 1]
