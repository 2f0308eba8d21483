"""Budgets of queries, tokens and seconds as a person grants them."""

import itertools
import time

import pytest

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run

FOUR = (*SMALL, "calibration.probes=4", "noise.repeats=4")


def made(root, *words):
    ended = zo_run(*FOUR, *words, f"runtime.root={root}")
    assert ended.code == 0, ended.err
    run = the_run(root)
    return read_json(run / "result.json"), run, ended


def test_the_result_says_what_was_granted_spent_and_computed(tmp_path):
    result, run, _ = made(tmp_path)
    assert result["budget"] == {"queries": 40, "tokens": None, "seconds": None}
    assert result["identity"]["budget"] == {"queries": 40, "tokens": None, "seconds": None, "eval_every": 20}
    # Two per weight and token at the least, in the 3 layers of width 128 with a feed-forward of 512.
    assert result["flops"] > 2 * 3 * (4 * 128**2 + 2 * 128 * 512) * result["tokens"]
    assert result["peak_memory_of"].startswith("resident set of the process")
    meta = read_json(run / "meta.json")
    assert result["provenance"] == {key: meta[key] for key in ("model_revision", "data_files")}
    assert result["provenance"]["model_revision"].startswith("sha256:")
    assert list(result["provenance"]["data_files"]) == ["generated/sentiment"]


def test_a_budget_of_tokens_is_spent_up_to_a_step_and_never_passed(tmp_path):
    result, run, ended = made(tmp_path, "budget.queries=null", "budget.tokens=2e3")
    assert result["budget"] == {"queries": None, "tokens": 2000, "seconds": None}
    steps = read_jsonl(run / "journal.jsonl")
    assert result["queries"]["train"] == 2 * len(steps)
    assert 2000 - 2 * 4 * 20 < result["tokens"] <= 2000  # no prompt of the four has 20 tokens
    assert f"; {result['tokens']} of 2000 tokens in {2 * len(steps)} queries; " in ended.out


def test_calibration_is_charged_in_tokens(tmp_path):
    words = ("method.lr=auto", "method.eps=auto", "budget.queries=null", "budget.tokens=4000")
    result, _, _ = made(tmp_path, *words)
    assert result["queries"]["calibration"] >= 3 * 4
    assert result["queries"]["train"] >= 2
    assert 3000 < result["tokens"] <= 4000


@pytest.mark.parametrize(
    ("unit", "chosen"),
    [
        ("queries", ["method.lr=auto"]),
        ("tokens", ["method.lr=auto"]),
        ("tokens", ["method.lr=auto", "calibration.every=0"]),
        ("tokens", ["method.eps=auto"]),
    ],
)
def test_the_least_budget_is_named_and_suffices(unit, chosen, tmp_path):
    words = (*chosen, "budget.queries=null")
    refused = zo_run(*FOUR, *words, f"budget.{unit}=1", f"runtime.root={tmp_path}")
    start = f"zo-run: error: Invalid budget.{unit}: 1. Must be >= "
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(start)
    assert refused.err.endswith(", the cost of one step of ar1zo and its calibration with calibration.probes=4.\n")
    least = int(refused.err.removeprefix(start).split(",")[0])
    refused = zo_run(*FOUR, *words, f"budget.{unit}={least - 1}", f"runtime.root={tmp_path}")
    assert refused.err.startswith(f"zo-run: error: Invalid budget.{unit}: {least - 1}. Must be >= {least},")
    result, _, _ = made(tmp_path, *words, f"budget.{unit}={least}")
    spent = result["queries"]["calibration"] + result["queries"]["train"] if unit == "queries" else result["tokens"]
    assert result["queries"]["train"] == 2
    assert spent == least


def test_a_budget_of_seconds_ends_after_them_and_nothing_is_told_from_the_clock_on_the_wall(tmp_path, monkeypatch):
    """Every look at the process's clock is 1/64 s later; the wall's clock goes back by a day at every look."""
    ticks, days = itertools.count(), itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 64)
    monkeypatch.setattr(time, "time", lambda: 1.6e9 - 86_400 * next(days))
    result, run, ended = made(tmp_path, "method.lr=auto", "budget.queries=null", "budget.seconds=0.5")
    seconds = result["seconds"]
    assert min(seconds.values()) >= 0 < seconds["calibration"]
    spent = seconds["train"] + seconds["calibration"]
    assert 0.5 <= spent < 0.5 + 2 * seconds["step_median"]
    assert spent <= seconds["total"]
    told = [event["seconds"] for event in read_jsonl(run / "metrics.jsonl") if "seconds" in event]
    assert told == sorted(told)
    queries = result["queries"]["train"] + result["queries"]["calibration"]
    assert f"; {spent:.1f} of 0.5 s in {queries} queries; " in ended.out


def test_seconds_that_calibration_uses_up_are_an_error_and_not_an_empty_run(tmp_path):
    words = ("method.lr=auto", "budget.queries=null", "budget.seconds=1e-6")
    ended = zo_run(*FOUR, *words, f"runtime.root={tmp_path}")
    assert ended.code == 1
    assert ended.err.startswith("zo-run: error: Invalid budget.seconds: 1e-06. Must be > ")
    assert ended.err.endswith(", which calibration took.\n")
    assert read_json(the_run(tmp_path) / "result.json")["status"] == "failed"


def test_the_same_tokens_written_otherwise_are_the_same_run(tmp_path):
    result, _, _ = made(tmp_path, "budget.queries=null", "budget.tokens=1e3")
    again = zo_run(*FOUR, "budget.queries=null", "budget.tokens=1000", f"runtime.root={tmp_path}")
    assert "cached, done" in again.out
    assert isinstance(result["budget"]["tokens"], int)
