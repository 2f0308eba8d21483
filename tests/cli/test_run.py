"""One run: what it leaves behind, and that it is made once."""

import math

import pytest
from omegaconf import OmegaConf

from tests.cli.helpers import SMALL, read_journal, read_json, read_jsonl, runs_below, snapshot, the_run, zo_run
from zo_runner.config import identity

RESULT = {
    *("schema", "job", "run_id", "status", "metric", "method", "model", "task", "rank", "alpha", "scaling", "seed"),
    *("lr", "eps", "budget", "queries", "examples", "tokens", "flops", "seconds", "metrics", "objective", "error"),
    *("signal", "coverage", "peak_memory_bytes", "peak_memory_of", "provenance"),
}
TRAIN_EVENT = {"lr", "train/loss", "zo/slope", "zo/signal", "zo/noise", "zo/fd_snr", "zo/fd_snr_db", "zo/atom"}
POSITION = {"step", "queries", "seconds"}
ATOMS = {"zo/atoms/fd_snr_db", "zo/atoms/infinite", "zo/atoms/unvisited"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(root):
    # Noise that is added: of so few examples all re-evaluations may round alike.
    noise = ("noise=injected", "noise.std=1e-4")
    return *SMALL, *noise, "method.lr=1e-3", "method.eps=1e-3", f"runtime.root={root}"


@pytest.fixture(scope="module")
def ended(command):
    return zo_run(*command)


@pytest.fixture(scope="module")
def run(ended, root):
    assert ended.code == 0, ended.err
    return the_run(root)


@pytest.fixture(scope="module")
def result(run):
    return read_json(run / "result.json")


def test_the_run_lies_where_its_configuration_says(run, root, result):
    folder = run.relative_to(root).as_posix()
    assert folder == f"pocket_sentiment/pocket_opt/ar1zo/s0-{result['run_id']}"


def test_a_run_directory_holds_exactly_the_files_that_were_promised(run):
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    adapter = {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert found == {"config.yaml", "meta.json", "metrics.jsonl", "journal.jsonl", "result.json"} | {
        f"{folder}/{name}" for folder in ("adapter", "best") for name in adapter
    }


def test_the_closing_line_is_the_only_one_and_names_the_folder(ended, run):
    assert ended.err == ""
    (line,) = ended.out.splitlines()
    assert line.startswith("ar1zo rank=8 seed=0: done; dev ")
    assert "; 40 of 40 queries; " in line
    assert line.endswith(str(run))


def test_result_json_has_every_field_of_the_contract(result, run):
    assert set(result) >= RESULT
    assert (result["schema"], result["status"], result["method"], result["rank"]) == (4, "done", "ar1zo", 8)
    assert (result["model"], result["task"]) == ("pocket_opt", "pocket_sentiment")
    assert (result["alpha"], result["scaling"]) == (16.0, "topology")
    assert (result["seed"], result["lr"], result["eps"], result["error"]) == (0, 1e-3, 1e-3, None)
    assert result["budget"] == {"queries": 40, "tokens": None, "seconds": None}
    assert result["queries"] == {"train": 40, "calibration": 0, "noise": 8}
    assert result["examples"] == 40 * 4
    assert result["tokens"] > result["examples"]
    assert set(result["seconds"]) >= {"train", "eval", "total", "step_median"}
    assert result["seconds"]["total"] >= result["seconds"]["train"] > 20 * result["seconds"]["step_median"] / 4 > 0
    assert result["peak_memory_bytes"] > 2**20
    dev, test = result["metrics"]["dev"], result["metrics"]["test"]
    assert set(dev) == {"zero_shot", "best", "last"}
    assert set(test) == {"best", "last"}
    assert all(set(score) == {"loss", "accuracy"} for score in test.values())
    assert (dev["zero_shot"]["queries"], dev["last"]["queries"], dev["last"]["step"]) == (0, 40, 20)
    assert result["objective"] == dev["best"]["loss"]
    assert set(result["signal"]) == {"zo/signal", "zo/noise", "zo/fd_snr", "zo/fd_snr_db"}
    assert result["coverage"] == {"atoms": 8, "visited": 8, "queries": 16}


def test_metrics_name_their_readings_as_promised(run):
    events = read_jsonl(run / "metrics.jsonl")
    train = [event for event in events if "train/loss" in event]
    dev = [event for event in events if "dev/loss" in event]
    assert len(train) + len(dev) == len(events)
    assert all(set(event) == POSITION | TRAIN_EVENT for event in train)
    assert set(dev[0]) == POSITION | {"dev/loss", "dev/accuracy"}
    assert all(set(event) == set(dev[0]) | ATOMS for event in dev[1:])
    assert all(len(event["zo/atoms/fd_snr_db"]) == 8 for event in dev[1:])
    assert [event["queries"] for event in dev] == [0, 20, 40]
    assert [event["step"] for event in train] == [1, 6, 11, 16, 20]
    assert all(event["zo/fd_snr_db"] == pytest.approx(10 * math.log10(event["zo/fd_snr"])) for event in train)


def test_the_journal_has_one_line_per_step_that_suffices_to_take_it_again(run):
    rows = read_jsonl(run / "journal.jsonl")
    assert [row["step"] for row in rows] == list(range(20))
    assert [row["atom"] for row in rows] == [step % 8 for step in range(20)]
    assert all((row["seed"], row["lr"], len(row["slopes"])) == (0, 1e-3, 1) for row in rows)


def test_the_saved_configuration_is_the_same_run(run, result):
    saved = OmegaConf.load(run / "config.yaml")
    assert identity.run_id(identity.identify(saved)) == result["run_id"] == run.name.split("-")[1]


def test_meta_json_says_where_the_numbers_come_from(run, command):
    meta = read_json(run / "meta.json")
    assert meta["argv"] == ["zo-run", *command]
    assert {"zo-run", "torch", "transformers", "peft", "hydra-core"} <= set(meta["packages"])
    assert (meta["device"], meta["dtype"], meta["threads"]) == ("cpu", "float32", 1)
    assert meta["examples"] == {"train": 64, "dev": 32, "test": 32}
    assert meta["first_prompt"]["text"].endswith("It was")


def test_the_same_command_again_is_cached_and_touches_no_file(command, root, run, result):
    before = snapshot(root)
    again = zo_run(*command)
    assert again.code == 0
    assert "cached, done" in again.out
    assert again.out.strip().endswith(str(run))
    assert snapshot(root) == before


def test_a_second_run_elsewhere_gives_the_same_numbers(command, run, result, tmp_path):
    zo_run(*command[:-1], f"runtime.root={tmp_path}")
    other = the_run(tmp_path)
    assert read_journal(other) == read_journal(run)
    again = read_json(other / "result.json")
    measured = ("seconds", "peak_memory_bytes", "checksum")
    assert {k: v for k, v in again.items() if k not in measured} == {
        k: v for k, v in result.items() if k not in measured
    }


@pytest.mark.parametrize("method", ["ar1zo", "mezo"])
def test_a_learning_rate_of_zero_leaves_the_model_at_zero_shot(method, tmp_path):
    ended = zo_run(
        *SMALL, f"method={method}", "method.lr=0", "budget.queries=8", "budget.eval_every=4", f"runtime.root={tmp_path}"
    )
    assert ended.code == 0, ended.err
    dev = read_json(the_run(tmp_path) / "result.json")["metrics"]["dev"]
    scores = [{key: dev[point][key] for key in ("loss", "accuracy")} for point in ("zero_shot", "best", "last")]
    assert scores[0] == scores[1] == scores[2]


def test_a_method_without_an_adapter_saves_a_model_and_says_nothing_of_ranks(tmp_path):
    ended = zo_run(*SMALL, "method=mezo", "rank=4", "budget.queries=4", f"runtime.root={tmp_path}")
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert (result["rank"], result["alpha"], result["scaling"]) == (None, None, None)
    assert result["coverage"] is None
    assert not [key for event in read_jsonl(run / "metrics.jsonl") for key in event if key.startswith("zo/atom")]
    assert (run / "best" / "model.safetensors").is_file()
    assert ended.err.startswith("zo-run: warning: rank has no effect: method=mezo trains every parameter")
    assert len(ended.err.splitlines()) == 1


def test_a_run_too_short_for_its_rank_says_how_many_atoms_it_reached(tmp_path):
    ended = zo_run(*SMALL, "rank=16", "budget.queries=20", f"runtime.root={tmp_path}")
    assert ended.code == 0, ended.err
    run = the_run(tmp_path)
    assert read_json(run / "result.json")["coverage"] == {"atoms": 16, "visited": 10, "queries": None}
    last = read_jsonl(run / "metrics.jsonl")[-1]
    assert last["zo/atoms/unvisited"] == 6
    assert last["zo/atoms/fd_snr_db"][10:] == ["nan"] * 6
    assert "nan" not in last["zo/atoms/fd_snr_db"][:10]


def test_a_random_order_covers_the_atoms_later_than_a_pass_does(tmp_path):
    ended = zo_run(*SMALL, "rank=4", "method.order=random", "budget.queries=100", f"runtime.root={tmp_path}")
    assert ended.code == 0, ended.err
    run = the_run(tmp_path)
    atoms = [row["atom"] for row in read_jsonl(run / "journal.jsonl")]
    queries = 2 * (1 + max(atoms.index(k) for k in range(4)))
    assert read_json(run / "result.json")["coverage"] == {"atoms": 4, "visited": 4, "queries": queries}
    assert queries > 8


def test_folders_of_different_seeds_and_tasks_do_not_meet(command, root, run):
    zo_run(*command, "seed=1", "budget.queries=4")
    zo_run(*command, "task=pocket_entailment", "budget.queries=4")
    names = [path.relative_to(root).parts for path in runs_below(root)]
    assert len(names) == 3
    assert {name[0] for name in names} == {"pocket_sentiment", "pocket_entailment"}
    assert {name[3].split("-")[0] for name in names if name[0] == "pocket_sentiment"} == {"s0", "s1"}
