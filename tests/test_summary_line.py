"""The closing line: scores in the metric's format, what was charged of what was granted, and the folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.made_results import result
from zo_runner.records.result import EvaluateResult
from zo_runner.reporting.summary_line import closing_line

RUN = Path("runs/s0-a")


def test_a_finished_run_tells_scores_signal_cost_and_folder():
    made = result("a", accuracy=0.875)
    assert closing_line(made, RUN, cached=True) == (
        "ar1zo rank=8 seed=0: cached, done; dev 87.5% -> 87.5% at 40 queries; test 87.5% (best), 87.5% (last); "
        "FD-SNR 20 dB; 40 of 40 queries; 17 s; runs/s0-a"
    )


@pytest.mark.parametrize(
    ("unit", "granted", "told"),
    [
        ("queries", 40, "; 40 of 40 queries; "),
        ("tokens", 2000, "; 1234 of 2000 tokens in 40 queries; "),
        ("seconds", 12.5, "; 11.0 of 12.5 s in 40 queries; "),
    ],
)
def test_the_charge_is_told_in_the_unit_of_the_budget(unit, granted, told):
    budget = {"budget__queries": None} | {f"budget__{unit}": granted}
    assert told in closing_line(result("a", **budget), RUN, cached=False)


def test_a_run_that_failed_before_its_first_score_tells_its_error():
    made = replace(result("a", status="failed"), error="the disk is full", metrics={}, signal={}, rank=None)
    line = closing_line(made, RUN, cached=False)
    assert line == "ar1zo seed=0: failed; the disk is full; 40 of 40 queries; 17 s; runs/s0-a"


def test_an_evaluation_tells_every_metric():
    made = EvaluateResult(
        job="evaluate",
        run_id="a",
        model="m",
        task="t",
        seed=0,
        identity={},
        status="done",
        adapter=None,
        shots=2,
        split="test",
        metric="f1",
        metrics={"test": {"loss": 1.5, "f1": 0.5, "exact_match": 0.25}},
        examples=8,
        seconds={"eval": 2.0, "total": 3.0},
    )
    told = "m, 2-shot: test 50.0% f1, 25.0% exact match, loss 1.5000; 8 examples, 2.0 s; runs/s0-a"
    assert closing_line(made, RUN, cached=False) == told
