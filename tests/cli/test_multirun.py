"""Many runs: all are made once, failures do not take the others along, and equal budgets share one table."""

import datetime
import math

import pandas as pd
import pytest

from tests.cli.helpers import SMALL, read_json, read_jsonl, runs_below, snapshot, zo_run
from zo_runner.training.trainer import Trainer

GRID = ("-m", "method=mezo,ar1zo", "rank=4,8", "seed=0,1", "budget.queries=8", "budget.eval_every=8")
TINY = (*SMALL, "budget.queries=8", "budget.eval_every=8")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def grid(root):
    """The finished grid and how it ended."""
    ended = zo_run(*SMALL, *GRID, f"runtime.root={root}")
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def table_file(grid, root):
    """The table that the grid ended in."""
    (file,) = tables_below(root)
    return file


def tables_below(folder):
    return sorted(folder.rglob("table.csv"))


def test_a_grid_makes_each_run_once_and_mezo_once_per_seed(grid, root):
    runs = runs_below(root)
    assert len(runs) == 6
    assert sum("/mezo/" in run.as_posix() for run in runs) == 2
    assert all(read_json(run / "result.json")["status"] == "done" for run in runs)


def test_a_grid_ends_in_one_table_of_three_rows_of_two_seeds(grid, table_file):
    table = pd.read_csv(table_file)
    assert list(table["n"]) == [2] * 3
    ranks = [None if math.isnan(rank) else int(rank) for rank in table["rank"]]
    assert list(zip(table["method"], ranks, strict=True)) == [("ar1zo", 4), ("ar1zo", 8), ("mezo", None)]
    assert set(table["queries"]) == {8.0}
    text = (table_file.parent / "table.md").read_text(encoding="utf-8")
    assert "8 queries of 4 examples" in text
    assert text in grid.out
    assert sum(line.startswith("|") for line in text.splitlines()) == 2 + 3


def test_cells_of_the_table_are_the_mean_and_spread_of_the_results(root, table_file):
    table = pd.read_csv(table_file)
    row = table[table["rank"] == 8].iloc[0]
    results = [read_json(run / "result.json") for run in runs_below(root)]
    one, two = (r["metrics"]["test"]["best"]["accuracy"] for r in results if r["rank"] == 8)
    assert row["test_best"] == pytest.approx((one + two) / 2)
    assert row["test_best_sd"] == pytest.approx(abs(one - two) / math.sqrt(2))


def test_the_same_grid_again_runs_nothing(root, table_file):
    before = {path: stat for path, stat in snapshot(root).items() if "sweeps" not in path.parts and path.is_file()}
    again = zo_run(*SMALL, *GRID, f"runtime.root={root}")
    assert again.code == 0
    lines = [line for line in again.out.splitlines() if " seed=" in line]
    assert len(lines) == 8
    assert all(": cached, done; " in line for line in lines)
    after = snapshot(root)
    assert all(after[path] == stat for path, stat in before.items())
    first, second = (pd.read_csv(file) for file in tables_below(root / "sweeps"))
    pd.testing.assert_frame_equal(first, second)


def test_job_table_rebuilds_the_rows_of_a_grid(root, table_file):
    ended = zo_run("job=table", "task=pocket_sentiment", "task.num_train=64", f"runtime.root={root}")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    pd.testing.assert_frame_equal(pd.read_csv(root / "table.csv"), pd.read_csv(table_file))


@pytest.mark.parametrize(
    ("words", "methods", "n"),
    [(["method=ar1zo"], ["ar1zo", "ar1zo"], 2), (["rank=4", "method=ar1zo", "seed=1"], ["ar1zo"], 1)],
)
def test_overrides_select_the_rows_of_job_table(words, methods, n, grid, root):
    assert zo_run("job=table", *words, f"runtime.root={root}").code == 0
    table = pd.read_csv(root / "table.csv")
    assert list(table["method"]) == methods
    assert set(table["n"]) == {n}


def test_job_table_that_selects_nothing_says_so(grid, root):
    ended = zo_run("job=table", "seed=77", f"runtime.root={root}")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        f"zo-run: error: No table: no run below '{root}' agrees with the command. Run some first, or choose fewer keys."
    ]


def test_failing_and_crashing_jobs_are_named_and_do_not_take_the_others_along(tmp_path, monkeypatch):
    original = Trainer.fit

    def fit(trainer, past):
        if trainer.method.rank == 3:
            raise RuntimeError("the disk has melted")
        return original(trainer, past)

    monkeypatch.setattr(Trainer, "fit", fit)
    ended = zo_run("-m", *TINY, "rank=0,2,3,4", f"runtime.root={tmp_path}")
    assert ended.code == 1
    results = [read_json(run / "result.json") for run in runs_below(tmp_path)]
    assert {result["rank"]: result["status"] for result in results} == {2: "done", 3: "failed", 4: "done"}
    lines = ended.err.splitlines()
    assert lines[0] == "zo-run: error: Invalid rank: 0. Must be an integer >= 1."
    assert lines[-3] == "zo-run: 2 of 4 jobs failed:"
    assert "rank=0" in lines[-2]
    assert lines[-2].endswith(": Invalid rank: 0. Must be an integer >= 1.")
    assert "rank=3" in lines[-1]
    assert lines[-1].endswith("RuntimeError: the disk has melted")
    assert list(pd.read_csv(tables_below(tmp_path)[0])["rank"]) == [2, 4]


def test_a_value_that_does_not_compose_is_one_line(tmp_path):
    ended = zo_run("-m", *TINY, "rank=2,abc", f"runtime.root={tmp_path}")
    assert ended.code == 1
    assert "zo-run: error: Invalid rank: 'abc'. Must be an integer." in ended.err.splitlines()
    assert "Traceback" not in ended.err


def test_unequal_budgets_share_no_table_and_the_runs_are_kept(tmp_path):
    ended = zo_run("-m", *SMALL, "budget.queries=4,8", f"runtime.root={tmp_path}")
    assert len(runs_below(tmp_path)) == 2
    assert all(read_json(run / "result.json")["status"] == "done" for run in runs_below(tmp_path))
    assert not list(tmp_path.rglob("table.*"))
    (line,) = ended.err.splitlines()
    assert "No table: its rows differ in budget.queries (4, 8)" in line
    chosen = zo_run("job=table", "budget.queries=8", f"runtime.root={tmp_path}")
    assert chosen.code == 0
    assert list(pd.read_csv(tmp_path / "table.csv")["queries"]) == [8.0]


def test_flags_may_stand_after_overrides(tmp_path):
    ended = zo_run(f"runtime.root={tmp_path}", "rank=0,-1", "-m", "seed=0,1")
    assert "zo-run: 4 of 4 jobs failed:" in ended.err.splitlines()


def test_multiruns_of_the_same_instant_have_folders_of_their_own(tmp_path, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr("hydra.core.utils.datetime", Stopped)
    for seed in (0, 1):
        assert zo_run("-m", "rank=0", f"seed={seed}", f"runtime.root={tmp_path}").code == 1
    folders = list((tmp_path / "sweeps").iterdir())
    assert len({folder.name.rsplit("-", 1)[0] for folder in folders}) == 1
    assert [len(read_jsonl(folder / "jobs.jsonl")) for folder in folders] == [1, 1]
