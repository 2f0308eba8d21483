"""Sweeps that are killed, shared by processes, or spread over workers end as one that ran alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.helpers import SMALL, runs_below, zo_run
from tests.cli.test_sweeps import FINALS, RUNS, TINY, TRIALS, finished, table

SCRIPT = Path(sys.executable).parent / "zo-run"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The table of an uninterrupted sweep."""
    root = tmp_path_factory.mktemp("alone")
    assert zo_run(*TINY, f"runtime.root={root}").code == 0
    return table(root)


def test_a_killed_sweep_goes_on_where_it_was_and_ends_in_the_same_table(alone, tmp_path):
    command = [SCRIPT, *TINY, f"runtime.root={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while len(finished(tmp_path)) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    kept = {run: (run / "result.json").stat().st_mtime_ns for run in finished(tmp_path)}
    assert 3 <= len(kept) < RUNS
    again = zo_run(*TINY, f"runtime.root={tmp_path}")
    assert again.code == 0, again.err
    assert made_by(again.out) >= RUNS - len(kept)
    untouched = [run for run, when in kept.items() if (run / "result.json").stat().st_mtime_ns == when]
    assert len(untouched) >= len(kept) - 2  # at most those that stage two completed were written again
    assert len(runs_below(tmp_path)) == RUNS
    pd.testing.assert_frame_equal(table(tmp_path), alone)


def made_by(out):
    """How many runs a process has made or completed."""
    return sum(": done; " in line for line in out.splitlines())


# Together


def test_two_processes_share_a_sweep_without_doing_or_losing_anything_twice(alone, tmp_path):
    command = [SCRIPT, *TINY, f"runtime.root={tmp_path}"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sum(made_by(out) for out, _ in ends) == TRIALS + FINALS
    assert len(runs_below(tmp_path)) == RUNS
    assert not list(tmp_path.glob(".*.lock"))
    pd.testing.assert_frame_equal(table(tmp_path), alone)


def test_two_workers_of_joblib_make_the_same_table(alone, tmp_path):
    words = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"runtime.root={tmp_path}")
    done = subprocess.run([SCRIPT, *TINY, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(runs_below(tmp_path)) == RUNS
    pd.testing.assert_frame_equal(table(tmp_path), alone)


def test_a_failing_row_is_named_and_the_others_run(tmp_path):
    blocked = tmp_path / "pocket_sentiment" / "pocket_opt" / "naive_atom"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    ended = zo_run(*TINY, f"runtime.root={tmp_path}")
    assert ended.code == 1
    assert "zo-run: failed: naive_atom {'method.lr_scale': 0.1} seed=0" in ended.err
    assert ended.err.splitlines()[-1] == "zo-run: error: 2 runs failed and 0 tables were refused."
    frame = table(tmp_path).set_index("method")
    assert frame.loc["ar1zo", "n"] == 2
    assert (frame.loc["naive_atom", "n"], frame.loc["naive_atom", "missing"]) == (0, 1)


def test_the_same_command_twice_at_once_runs_once_and_the_second_waits(tmp_path):
    command = [SCRIPT, *SMALL, "budget.queries=400", "runtime.threads=1", f"runtime.root={tmp_path}"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sorted("cached, done" in out for out, _ in ends) == [False, True]
    assert len(runs_below(tmp_path)) == 1
