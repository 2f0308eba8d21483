"""Rows: what belongs together, and which of its runs may be averaged."""

import copy
import math
from dataclasses import replace
from functools import reduce
from operator import getitem

import pytest

from tests.made_results import hole, identity, result, without_adapter
from zo_runner.reporting.tables.aggregate import configuration, flatten, labels, sections
from zo_runner.reporting.tables.comparability import problems, refusal


def rows_of(results):
    ((_, rows),) = sections(results).items()
    return rows


def row_of(results):
    (row,) = rows_of(results)
    return row


def counts(row):
    return len(row.done), len(row.diverged), len(row.invalid), row.missing


def reasons(results, match=None):
    return [problem.reason for problem in problems(rows_of(results), match)]


def test_tasks_and_models_have_rows_of_their_own():
    found = sections([result("a"), result("b", task__name="u"), result("c", model__name="n")])
    assert list(found) == [("t", "m"), ("t", "n"), ("u", "m")]


def test_rows_stand_in_the_order_of_method_and_rank():
    plain = without_adapter(result("d", method__name="mezo"))
    given = [plain, result("a", rank=16), result("b", rank=4), result("c", method__name="aaa", rank=8)]
    labels = ["aaa rank=8", "ar1zo rank=4", "ar1zo rank=16", "mezo"]
    assert [row.label for row in rows_of(given)] == labels
    assert [row.label for row in rows_of(given[::-1])] == labels


def test_rows_are_called_by_what_tells_them_apart():
    lora = result("d", method__name="lora")
    rows = rows_of([result("a", rank=4), result("b"), result("c", method__order="random"), lora])
    called = labels(rows)
    assert [called[row.key] for row in rows] == [
        "ar1zo rank=4",
        "ar1zo rank=8 method.order=cyclic",
        "ar1zo rank=8 method.order=random",
        "lora rank=8",
    ]


def test_a_configuration_is_an_identity_without_its_seeds():
    assert configuration(identity(seed=0)) == configuration(identity(seed=7)) == row_of([result("a")]).key
    reordered = dict(reversed(identity().items()))
    assert configuration(reordered) == configuration(identity())
    assert configuration(identity(method__lr=2e-3)) != configuration(identity())


def test_flatten_keeps_lists_and_joins_keys():
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }


def test_a_run_that_is_given_twice_counts_once():
    assert counts(row_of([result("a"), result("b", seed=1), result("a")])) == (2, 0, 0, 0)
    nan = result("a", fd_snr_db=math.nan)  # is not equal to itself
    assert counts(row_of([nan, copy.deepcopy(nan)])) == (1, 0, 0, 0)


@pytest.mark.parametrize("status", ["failed", "interrupted", "missing"])
def test_a_run_that_did_not_finish_is_missing(status):
    broken = replace(result("b", seed=1), status=status, metrics={})
    assert counts(row_of([result("a"), broken])) == (1, 0, 0, 1)
    assert counts(row_of([broken])) == (0, 0, 0, 1)


def test_a_hole_yields_to_the_run_it_stands_for():
    assert counts(row_of([hole("a"), result("a"), hole("b", seed=1)])) == (1, 0, 0, 1)
    assert counts(row_of([result("a"), hole("a")])) == (1, 0, 0, 0)


def test_a_diverged_hole_has_no_scores_and_counts_as_diverged():
    assert counts(row_of([hole("a", status="diverged"), result("b", seed=1)])) == (1, 1, 0, 0)


def test_two_runs_of_one_seed_are_neither_averaged_nor_hidden():
    given = [result("a", accuracy=0.1), result("b", accuracy=0.9), result("c", seed=1)]
    row = row_of(given)
    assert counts(row) == (1, 0, 2, 0)
    assert [made.run_id for made in row.done] == ["c"]
    assert reasons(given) == ["ar1zo rank=8: seed 0 is there 2 times (runs a, b)"]


def test_a_diverged_run_of_the_same_seed_clashes_too():
    row = row_of([result("a"), result("b", status="diverged")])
    assert counts(row) == (0, 0, 2, 0)


def test_one_run_with_two_contents_is_not_averaged():
    given = [result("a", accuracy=0.1), result("a", accuracy=0.9), result("c", seed=1)]
    assert counts(row_of(given)) == (1, 0, 2, 0)
    assert reasons(given) == ["ar1zo rank=8: seed 0 is there 2 times (runs a)"]


def test_a_stream_of_its_own_makes_another_seed():
    """Repeating one seed with other directions is an experiment, not a mistake."""
    other = result("b")
    other.identity["seeds"]["order"] = 5
    assert (result("a").streams, other.streams) == ("0", "0 order=5")
    assert counts(row_of([result("a"), other])) == (2, 0, 0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.5, 57.0], ids=repr)
@pytest.mark.parametrize("point", ["dev.zero_shot", "dev.best", "dev.last", "test.best", "test.last"])
def test_a_score_out_of_range_spoils_its_run(point, value):
    split, _, name = point.partition(".")
    bad = result("b", seed=1, accuracy=0.9)
    bad.metrics[split][name]["accuracy"] = value
    row = row_of([result("a", accuracy=0.5), bad])
    assert counts(row) == (1, 0, 1, 0)
    assert row.flaws == (f"run b (seed 1) says done and has {split} {name} accuracy {value!r}",)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("split", "point"), [("dev", "best"), ("test", "last")])
def test_a_loss_that_is_not_finite_spoils_its_run(split, point, value):
    bad = result("b")
    bad.metrics[split][point]["loss"] = value
    assert counts(row_of([bad])) == (0, 0, 1, 0)


@pytest.mark.parametrize("path", [("dev",), ("dev", "best"), ("test", "last"), ("dev", "last", "loss")])
def test_a_missing_score_spoils_its_run(path):
    bad = result("b")
    *parents, last = path
    del reduce(getitem, parents, bad.metrics)[last]
    assert counts(row_of([bad])) == (0, 0, 1, 0)


def test_an_unread_test_is_no_flaw():
    tuned = result("a")
    tuned.metrics["test"] = {}
    assert counts(row_of([tuned])) == (1, 0, 0, 0)


def test_perplexity_may_exceed_one_and_accuracy_may_not():
    assert counts(row_of([result("a", metric="perplexity", accuracy=40.0)])) == (1, 0, 0, 0)
    assert counts(row_of([result("a", metric="perplexity", accuracy=math.inf)])) == (0, 0, 1, 0)
    assert counts(row_of([result("a", accuracy=40.0)])) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("budget.queries", 80, "budget.queries (40, 80)"),
        ("budget.eval_every", 10, "budget.eval_every (10, 20)"),
        ("task.version", 2, "task.version (1, 2)"),
        ("task.template", "{text}", 'task.template ("{text} It was", "{text}")'),
        ("task.num_train", 20, "task.num_train (10, 20)"),
        ("model.revision", "abc", 'model.revision ("abc", null)'),
        ("model.path", "q", 'model.path ("p", "q")'),
        ("runtime.dtype", "bfloat16", 'runtime.dtype ("bfloat16", "float32")'),
        ("batch_size", 8, "batch_size (16, 8)"),
    ],
)
def test_rows_that_were_not_granted_the_same_do_not_match(key, value, told):
    rows = rows_of([result("a"), result("b", method__name="mezo", **{key.replace(".", "__"): value})])
    sentence = refusal(problems(rows))
    assert sentence.startswith(f"No table: its rows differ in {told}")
    assert f"zo-run job=table {key}=..." in sentence


def test_every_key_that_differs_is_named():
    (reason,) = reasons([result("a"), result("b", budget__queries=None, budget__tokens=5000)])
    assert "budget.queries (40, null) and budget.tokens (5000, null)" in reason


@pytest.mark.parametrize("key", ["method__lr", "rank", "alpha", "method__eps", "noise__std"])
def test_what_an_experiment_may_vary_does_not_refuse_a_table(key):
    assert reasons([result("a"), result("b", **{key: 0.5})]) == []


def test_the_rows_set_apart_are_the_fewer():
    given = [result("a", rank=1, budget__queries=80), *(result(str(rank), rank=rank) for rank in (2, 4))]
    rows = rows_of(given)
    (problem,) = problems(rows)
    assert problem.rows == {rows[0].key}


@pytest.mark.parametrize("unit", ["tokens", "seconds"])
def test_rows_must_have_been_granted_the_unit_that_is_matched(unit):
    (reason,) = reasons([result("a")], unit)
    assert reason == f"its rows are to share budget.{unit}, which was not granted to ar1zo rank=8"
    granted = result("a", budget__queries=None, **{f"budget__{unit}": 2000})
    assert reasons([granted], unit) == reasons([granted]) == []
    assert "budget.queries, which was not granted" in reasons([granted], "queries")[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_revision", "def"),
        ("model_revision", None),
        ("data_files", {"train.jsonl": "1" * 64}),
        ("data_files", {}),
    ],
)
def test_the_same_identity_must_have_read_the_same_model_and_data(key, value):
    changed = result("c", seed=2)
    changed.provenance[key] = value
    given = [result("a"), result("b", seed=1), changed]
    (reason,) = reasons(given)
    assert f"differ in provenance.{key}" in reason
    assert "run c has" in reason
    assert "run a" not in reason
    other_row = [made for made in given if made is not changed] + [replace(changed, identity=identity(seed=2, rank=4))]
    assert len(reasons(other_row)) == 1  # between rows as within one


def test_a_run_without_provenance_is_not_taken_on_trust():
    silent = replace(result("c", seed=2), provenance={})
    assert any("run c has nothing" in reason for reason in reasons([result("a"), result("b", seed=1), silent]))


def test_rows_of_another_metric_do_not_match():
    (reason,) = reasons([result("a"), result("b", seed=1), result("c", seed=2, metric="f1")])
    assert 'differ in metric, though they were asked for the same (run c has "f1"' in reason


@pytest.mark.parametrize(
    ("train", "calibration", "over"), [(38, 2, False), (39, 2, True), (40, 1, True), (41, 0, True)]
)
def test_more_queries_than_granted_are_refused(train, calibration, over):
    spent = result("a")
    spent.queries.update(train=train, calibration=calibration)
    told = [f"ar1zo rank=8 spent more than its budget (run a: {train + calibration} of 40 queries)"]
    assert reasons([spent]) == (told if over else [])


@pytest.mark.parametrize(("tokens", "over"), [(1234, False), (1235, True), (math.nan, True)])
def test_more_tokens_than_granted_are_refused(tokens, over):
    spent = replace(result("a", budget__queries=None, budget__tokens=1234), tokens=tokens)
    assert bool(reasons([spent])) is over


@pytest.mark.parametrize(("train", "over"), [(99.0, False), (105.0, False), (130.0, True), (math.nan, True)])
def test_seconds_may_run_out_within_a_step_and_not_by_far(train, over):
    spent = result("a", budget__queries=None, budget__seconds=100.0)
    spent.seconds.update(train=train, calibration=1.0, step_median=math.nan)
    assert bool(reasons([spent])) is over
