"""The progress bar: in the unit of the budget, and never past its end."""

import io

import pytest

from zo_runner.methods.base import StepReport
from zo_runner.records.run_directory import RunDirectory
from zo_runner.records.tracking import NoTracker
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.outcome import StepRecord
from zo_runner.training.recorder import Recorder


class Terminal(io.StringIO):
    """Where bars are drawn."""

    def isatty(self):
        return True


@pytest.fixture
def observer(tmp_path, monkeypatch):
    made = []

    def make(ledger, stream):
        monkeypatch.setattr("sys.stderr", stream)
        made.append(Recorder(RunDirectory(tmp_path), NoTracker(), print, title="run", ledger=ledger, seed=0))
        return made[-1]

    yield make
    for one in made:
        one.close({})
        one.directory.close()


@pytest.mark.parametrize(
    ("budget", "spent", "shown"),
    [
        (Budget(queries=40), {"queries": {"train": 6, "calibration": 12, "noise": 9}}, 18),
        (Budget(tokens=1000), {"tokens": 250}, 250),
        (Budget(seconds=60.0), {"seconds": {"train": 2.5, "calibration": 1.25, "noise": 9.0, "eval": 9.0}}, 3),
        (Budget(seconds=1.5), {"seconds": {"train": 2.5, "calibration": 0.0, "noise": 0.0, "eval": 0.0}}, 1.5),
    ],
)
def test_the_bar_shows_what_was_charged_in_the_unit_of_the_budget(observer, budget, spent, shown):
    watching = observer(Ledger(budget, **spent), Terminal())
    for step in range(2):
        watching.on_step(StepRecord(StepReport(step, 0.5, (1.0,), 0.1), 0.01), {})
    assert watching.bar.n == shown
    assert watching.bar.total == budget.limit
    assert watching.bar.unit.strip() == budget.unit


def test_without_a_terminal_there_is_no_bar_and_the_journal_is_written(observer, tmp_path):
    watching = observer(Ledger(Budget(queries=4), queries={"train": 2, "calibration": 0, "noise": 0}), io.StringIO())
    watching.on_step(StepRecord(StepReport(0, 0.5, (1.0,), 0.1), 0.01), {})
    assert watching.bar.disable
    assert (tmp_path / "journal.jsonl").read_text(encoding="utf-8").count("\n") == 1
