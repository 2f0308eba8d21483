"""Named sweeps, end to end: two stages, nothing twice, nothing lost, whoever runs them and however they are stopped."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor

from tests.cli.helpers import FORK, at_once, read_json, runs_below, snapshot, zo_run

# Two rows of two configurations on one tuning seed, two seeds: eight runs, two of which stage two only completes.
TINY = (
    *("-m", "+sweeps=rank_grid", "method=naive_atom,ar1zo", "rank=4", "seed=0,1", "batch_size=4", "tracker=none"),
    *("budget.queries=24", "budget.eval_every=12", "calibration.probes=2", "noise=none", "runtime.threads=1"),
    *("task.num_train=64", "task.num_dev=32", "task.num_test=32"),
)
TRIALS, FINALS, RUNS = 4, 4, 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def swept(root):
    """An uninterrupted sweep, and how it ended."""
    ended = zo_run(*TINY, f"runtime.root={root}")
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def folder(root, swept):
    (folder,) = (root / "sweeps").iterdir()
    return folder


@pytest.fixture(scope="module")
def plan(folder):
    return read_json(folder / "plan.json")


def table(root):
    (file,) = (root / "sweeps").glob("*/table.csv")
    return pd.read_csv(file)


def finished(root):
    """Finished runs, also while others are being written: it does not look into their folders."""
    return [file.parent for file in root.glob("*/*/*/*/result.json")]


# Two stages


def test_every_row_is_tuned_equally_and_each_run_is_made_once(plan, root):
    assert [job["stage"] for job in plan] == [1] * TRIALS + [2] * FINALS
    assert len({job["run"] for job in plan}) == len(runs_below(root)) == RUNS
    assert {job["status"] for job in plan} == {"done"}
    tried = [(job["row"], job["tuned"]["method.lr_scale"]) for job in plan if job["stage"] == 1]
    assert tried == [(m, c) for m in ("naive_atom", "ar1zo") for c in ("0.1", "0.3")]


def test_stage_two_runs_what_did_best_on_dev(plan):
    for row in {job["row"] for job in plan}:
        trials = [job for job in plan if job["row"] == row and job["stage"] == 1]
        best = [read_json(Path(job["run"]) / "result.json")["metrics"]["dev"]["best"] for job in trials]
        order = [(point["accuracy"], -point["loss"]) for point in best]
        chosen = {job["tuned"]["method.lr_scale"] for job in plan if job["row"] == row and job["stage"] == 2}
        assert chosen == {trials[order.index(max(order))]["tuned"]["method.lr_scale"]}


def test_only_what_is_chosen_reads_test(plan):
    chosen = {job["run"] for job in plan if job["stage"] == 2}
    for job in plan:
        result = read_json(Path(job["run"]) / "result.json")
        assert result["tested"] == (job["run"] in chosen)
        assert set(result["metrics"]["test"]) == ({"best", "last"} if job["run"] in chosen else set())


def test_test_read_later_is_test_read_at_the_end(plan, tmp_path):
    """The tuning run of what was chosen read test from its saved parameters; the same command reads it at once."""
    (later,) = {
        job["run"]: job for job in plan if job["stage"] == 2 and job["seed"] == 0 and "ar1zo" in job["run"]
    }.values()
    words = [word for word in later["command"].split()[1:] if not word.startswith("runtime.root")]
    assert zo_run(*words, f"runtime.root={tmp_path}").code == 0
    (run,) = runs_below(tmp_path)
    at_once, read_later = (read_json(Path(path) / "result.json") for path in (run, later["run"]))
    for key in ("run_id", "metrics", "queries", "tokens", "flops", "lr", "calibration", "evaluated", "tested"):
        assert at_once[key] == read_later[key], key


def test_the_cost_of_the_search_stands_in_the_table(root, folder, plan):
    frame = table(root)
    assert list(frame["n"]) == [2, 2]
    for _, row in frame.iterrows():
        trials = [job for job in plan if job["stage"] == 1 and f"/{row['method']}/" in job["run"]]
        queries = [read_json(Path(job["run"]) / "result.json")["queries"] for job in trials]
        assert row["search_queries"] == sum(q["train"] + q["calibration"] for q in queries)


def test_it_ends_in_tables_figures_and_a_page(folder):
    names = {file.name for file in folder.iterdir()}
    assert {"plan.json", "report.html", *(f"{t}.{s}" for t in ("table", "cost") for s in ("md", "csv", "tex"))} <= names
    assert {"rank-pocket_sentiment-pocket_opt.svg", "fd_snr_rank-pocket_sentiment-pocket_opt.png"} <= names


# Again, and by halves


def test_the_same_sweep_again_runs_nothing(swept, root):
    before = {path: stat for path, stat in snapshot(root).items() if "sweeps" not in path.parts and path.is_file()}
    again = zo_run(*TINY, f"runtime.root={root}")
    assert (again.code, again.out) == (0, swept.out[swept.out.index("Accuracy and FD-SNR") :])
    after = snapshot(root)
    assert all(after[path] == stat for path, stat in before.items())


def test_job_report_writes_what_there_is_and_says_what_is_missing(swept, root, tmp_path):
    ended = zo_run("job=report", *TINY[1:2], "method=ar1zo", "rank=4", "tracker=none", f"runtime.root={tmp_path}")
    assert ended.code == 0, ended.err
    (page,) = tmp_path.glob("sweeps/*/report.html")
    assert "not run" in page.read_text(encoding="utf-8")
    assert runs_below(tmp_path) == []


def test_a_plan_says_what_is_done_and_how_long_the_rest_takes(swept, root):
    words = [word for word in TINY if not word.startswith("seed=")]
    more = zo_run(*words, f"runtime.root={root}", "sweep.dry_run=true")
    assert (more.out.count("  done  zo-run "), more.out.count("  open  zo-run ")) == (TRIALS + FINALS, 2)
    assert f"in all: {24 * (TRIALS + FINALS + 2)} queries" in more.out
    results = [json.loads((run / "result.json").read_text()) for run in runs_below(root)]
    hours = float(more.out.split("hours left: ")[1].split(",")[0])
    assert hours <= max(result["seconds"]["total"] for result in results) * 3 / 3600 + 0.01


# Stopped, and together


def made_by(out):
    """How many runs a process has made or completed."""
    return sum(": done; " in line for line in out.splitlines())


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was_and_ends_in_the_same_table(swept, root, tmp_path):
    words = (*TINY, f"runtime.root={tmp_path}")
    process = FORK.Process(target=zo_run, args=words)
    process.start()
    while len(finished(tmp_path)) < 3:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    kept = {run: (run / "result.json").stat().st_mtime_ns for run in finished(tmp_path)}
    again = zo_run(*words)
    assert again.code == 0, again.err
    assert made_by(again.out) >= RUNS - len(kept)
    untouched = [run for run, when in kept.items() if (run / "result.json").stat().st_mtime_ns == when]
    assert len(untouched) >= len(kept) - 2  # at most those that stage two completed were written again
    assert len(runs_below(tmp_path)) == RUNS
    pd.testing.assert_frame_equal(table(tmp_path), table(root))


def test_two_processes_share_a_sweep_without_doing_or_losing_anything_twice(swept, root, tmp_path):
    words = (*TINY, "sweep.figures=[]", f"runtime.root={tmp_path}")
    ends = at_once(words, words)
    assert [ended.code for ended in ends] == [0, 0], ends
    assert sum(made_by(ended.out) for ended in ends) == TRIALS + FINALS
    assert len(runs_below(tmp_path)) == RUNS
    assert not list(tmp_path.glob(".*.lock"))
    pd.testing.assert_frame_equal(table(tmp_path), table(root))


@pytest.mark.slow
def test_two_workers_of_joblib_make_the_same_table(swept, root, tmp_path):
    done = zo_run(*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"runtime.root={tmp_path}")
    get_reusable_executor().shutdown()  # its workers stay in this folder
    assert done.code == 0, done.err
    assert len(runs_below(tmp_path)) == RUNS
    pd.testing.assert_frame_equal(table(tmp_path), table(root))


def test_a_failing_row_is_named_and_the_others_run(tmp_path):
    blocked = tmp_path / "pocket_sentiment" / "pocket_opt" / "naive_atom"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    ended = zo_run(*TINY, "seed=0", "sweep.figures=[]", f"runtime.root={tmp_path}")
    assert ended.code == 1
    assert "zo-run: failed: naive_atom {'method.lr_scale': 0.1} seed=0" in ended.err
    assert ended.err.splitlines()[-1] == "zo-run: error: 2 runs failed and 0 tables were refused."
    frame = table(tmp_path).set_index("method")
    assert frame.loc["ar1zo", "n"] == 1
    assert (frame.loc["naive_atom", "n"], frame.loc["naive_atom", "missing"]) == (0, 1)
