"""job=evaluate: the score of a model without training, alone, after solved examples, or with a saved adapter."""

import functools

import pytest

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run
from zo_runner.jobs.evaluate import with_shots
from zo_runner.tasks.base import Example

SIZES = ("task.num_train=64", "task.num_dev=32", "task.num_test=64", "tracker=none")
TRAINED_SIZES = tuple(word for word in SMALL if word.startswith("task."))


def evaluate(root, *words):
    """The result of an evaluation, and its line."""
    ended = zo_run("job=evaluate", *SIZES, f"runtime.root={root}", *words)
    assert ended.code == 0, ended.err
    return read_json(the_run(root) / "result.json"), ended


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a method, by name, at a rate that moves its scores."""

    @functools.cache
    def run(method):
        root, lr = tmp_path_factory.mktemp(method), {"ar1zo": "0.05", "mezo": "5e-4"}[method]
        words = (*SMALL, f"method={method}", f"method.lr={lr}", "budget.queries=20", "budget.eval_every=10")
        assert zo_run(*words, f"runtime.root={root}").code == 0
        return the_run(root)

    return run


@pytest.mark.parametrize("model", ["pocket_opt", "pocket_qwen3"])
def test_a_score_does_not_depend_on_the_batch_size(model, tmp_path):
    one, ended = evaluate(tmp_path / "1", f"model={model}", "batch_size=1")
    many, _ = evaluate(tmp_path / "32", f"model={model}", "batch_size=32")
    assert one["metrics"]["test"]["accuracy"] == many["metrics"]["test"]["accuracy"]
    assert one["metrics"]["test"]["loss"] == pytest.approx(many["metrics"]["test"]["loss"], abs=1e-5)
    assert ended.out.startswith(f"{model}, zero-shot: test {one['metrics']['test']['accuracy']:.1%}, loss ")
    assert one["examples"] == 64
    assert {file.name for file in the_run(tmp_path / "1").iterdir()} == {"config.yaml", "meta.json", "result.json"}


def test_the_same_evaluation_is_not_made_twice_and_does_not_enter_a_table(tmp_path):
    first, _ = evaluate(tmp_path)
    ended = zo_run("job=evaluate", *SIZES, f"runtime.root={tmp_path}", "rank=3")
    assert "cached" in ended.out
    assert ended.err == "zo-run: warning: rank has no effect: job=evaluate trains nothing\n"
    assert read_json(the_run(tmp_path) / "result.json") == first
    ended = zo_run("job=table", f"runtime.root={tmp_path}")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("zo-run: error: No table: no run below ")


def test_it_is_the_zero_shot_score_that_training_starts_from(trained, tmp_path):
    result, _ = evaluate(tmp_path, *TRAINED_SIZES, "evaluate.split=dev")
    first = next(e for e in read_jsonl(trained("ar1zo") / "metrics.jsonl") if "dev/loss" in e)
    expected = {"loss": pytest.approx(first["dev/loss"], rel=1e-6), "accuracy": first["dev/accuracy"]}
    assert result["metrics"]["dev"] == expected


@pytest.mark.parametrize(("method", "saved"), [("ar1zo", "best"), ("ar1zo", "adapter"), ("mezo", "best")])
def test_what_a_run_saved_scores_what_the_run_reported(method, saved, trained, tmp_path):
    run = trained(method)
    metrics = read_json(run / "result.json")["metrics"]
    test = metrics["test"]["last" if saved == "adapter" else "best"]
    words = (*TRAINED_SIZES, f"evaluate.adapter={run / saved}", "batch_size=64")
    result, ended = evaluate(tmp_path, *words)
    assert result["metrics"]["test"] == pytest.approx(test, abs=1e-6)
    assert ended.out.startswith(f"pocket_opt with {run / saved}: test ")
    assert metrics["dev"]["best"]["loss"] != pytest.approx(metrics["dev"]["zero_shot"]["loss"], abs=1e-6)


def test_shots_are_solved_training_examples_with_blank_lines_between(tmp_path):
    result, ended = evaluate(tmp_path, "evaluate.shots=2")
    text = read_json(the_run(tmp_path) / "meta.json")["first_prompt"]["text"]
    first, second, asked = text.split("\n\n")
    for solved in (first, second):
        assert solved.endswith((" It was terrible", " It was great"))
    assert asked.endswith(" It was")
    assert result["shots"] == 2
    assert ended.out.startswith("pocket_opt, 2-shot: test ")


def test_shots_follow_the_seed_and_come_before_the_null_prompt_too():
    train = [Example(f"q{i}\n", ("yes", "no"), (i % 2,)) for i in range(10)]
    asked = [Example("q?\n", ("yes", "no"), (0,), null_prompt="")]
    (one,), (again,), (other,) = (with_shots(asked, train, 3, seed) for seed in (0, 0, 1))
    assert one == again != other
    shots = one.prompt.removesuffix("\n\nq?\n").split("\n\n")
    assert len(set(shots)) == 3
    assert all(shot in {f"q{i}\n{('yes', 'no')[i % 2]}" for i in range(10)} for shot in shots)
    assert one.null_prompt == one.prompt.removesuffix("q?\n")


def test_mezos_bos_stands_first_and_is_in_the_record(tmp_path):
    for bos in ("native", "mezo"):
        evaluate(tmp_path / bos, f"model.bos={bos}")
    native, mezo = (read_json(the_run(tmp_path / b) / "meta.json")["first_prompt"]["ids"] for b in ("native", "mezo"))
    assert (native[0], mezo[0]) == (2, 0)
    assert native[1:] == mezo[1:]
