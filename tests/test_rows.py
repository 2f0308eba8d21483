"""Rows: what belongs together, and which of its runs may be averaged."""

import copy
import math
from dataclasses import replace
from functools import reduce
from operator import getitem

import pytest

from tests.made_results import hole, identity, put, result, without_adapter
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


def test_tasks_and_models_have_rows_of_their_own_in_the_order_of_method_and_rank():
    found = sections([result("a"), result("b", task__name="u"), result("c", model__name="n")])
    assert list(found) == [("t", "m"), ("t", "n"), ("u", "m")]
    plain = without_adapter(result("d", method__name="mezo"))
    given = [plain, result("a", rank=16), result("b", rank=4), result("c", method__name="aaa", rank=8)]
    for order in (given, given[::-1]):
        assert [row.label for row in rows_of(order)] == ["aaa rank=8", "ar1zo rank=4", "ar1zo rank=16", "mezo"]


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
    nested = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None}


def untested(run_id):
    made = result(run_id)
    made.metrics["test"] = {}
    return made


def of_its_own_order(run_id):
    """A run whose order follows a seed of its own: an experiment, and no second run of one seed."""
    made = result(run_id)
    made.identity["seeds"]["order"] = 5
    assert made.streams == "0 order=5"
    return made


UNFINISHED = [replace(result("b", seed=1), status=name, metrics={}) for name in ("failed", "interrupted", "missing")]
NAN = result("a", fd_snr_db=math.nan)  # is not equal to itself


@pytest.mark.parametrize(
    ("given", "expected"),  # runs that are done, diverged, invalid and missing
    [
        ([result("a"), result("b", seed=1), result("a")], (2, 0, 0, 0)),
        ([NAN, copy.deepcopy(NAN)], (1, 0, 0, 0)),
        *(([result("a"), each], (1, 0, 0, 1)) for each in UNFINISHED),
        *(([each], (0, 0, 0, 1)) for each in UNFINISHED),
        ([hole("a"), result("a"), hole("b", seed=1)], (1, 0, 0, 1)),
        ([result("a"), hole("a")], (1, 0, 0, 0)),
        ([hole("a", status="diverged"), result("b", seed=1)], (1, 1, 0, 0)),
        ([result("a"), result("b", status="diverged")], (0, 0, 2, 0)),
        ([result("a"), of_its_own_order("b")], (2, 0, 0, 0)),
        ([untested("a")], (1, 0, 0, 0)),
        ([result("a", metric="perplexity", accuracy=40.0)], (1, 0, 0, 0)),
        ([result("a", metric="perplexity", accuracy=math.inf)], (0, 0, 1, 0)),
        ([result("a", accuracy=40.0)], (0, 0, 1, 0)),
    ],
)
def test_each_run_counts_once_as_what_it_is(given, expected):
    assert counts(row_of(given)) == expected


@pytest.mark.parametrize(("other", "told"), [("b", "a, b"), ("a", "a")], ids=["two runs", "two contents of a run"])
def test_two_results_of_one_seed_are_neither_averaged_nor_hidden(other, told):
    given = [result("a", accuracy=0.1), result(other, accuracy=0.9), result("c", seed=1)]
    row = row_of(given)
    assert counts(row) == (1, 0, 2, 0)
    assert [made.run_id for made in row.done] == ["c"]
    assert reasons(given) == [f"ar1zo rank=8: seed 0 is there 2 times (runs {told})"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.5, 57.0], ids=repr)
@pytest.mark.parametrize("point", ["dev.zero_shot", "dev.best", "dev.last", "test.best", "test.last"])
def test_a_score_out_of_range_spoils_its_run(point, value):
    split, _, name = point.partition(".")
    bad = result("b", seed=1, accuracy=0.9)
    bad.metrics[split][name]["accuracy"] = value
    row = row_of([result("a", accuracy=0.5), bad])
    assert counts(row) == (1, 0, 1, 0)
    assert row.flaws == (f"run b (seed 1) says done and has {split} {name} accuracy {value!r}",)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((path, None) for path in ("dev", "dev.best", "test.last", "dev.last.loss")),
        *((path, value) for path in ("dev.best.loss", "test.last.loss") for value in (math.nan, math.inf)),
    ],
)
def test_a_missing_score_and_a_loss_that_is_not_finite_spoil_their_run(path, value):
    bad = result("b")
    put(bad.metrics, path, value)
    if value is None:
        *parents, last = path.split(".")
        del reduce(getitem, parents, bad.metrics)[last]
    assert counts(row_of([bad])) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget.queries": 80}, "budget.queries (40, 80)"),
        ({"budget.eval_every": 10}, "budget.eval_every (10, 20)"),
        ({"budget.queries": None, "budget.tokens": 5000}, "budget.queries (40, null) and budget.tokens (5000, null)"),
        ({"task.version": 2}, "task.version (1, 2)"),
        ({"task.template": "{text}"}, 'task.template ("{text} It was", "{text}")'),
        ({"task.num_train": 20}, "task.num_train (10, 20)"),
        ({"model.revision": "abc"}, 'model.revision ("abc", null)'),
        ({"model.path": "q"}, 'model.path ("p", "q")'),
        ({"runtime.dtype": "bfloat16"}, 'runtime.dtype ("bfloat16", "float32")'),
        ({"batch_size": 8}, "batch_size (16, 8)"),
    ],
)
def test_rows_that_were_not_granted_the_same_do_not_match(changes, told):
    other = {key.replace(".", "__"): value for key, value in changes.items()}
    sentence = refusal(problems(rows_of([result("a"), result("b", method__name="mezo", **other)])))
    assert sentence.startswith(f"No table: its rows differ in {told}")
    assert f"zo-run job=table {next(iter(changes))}=..." in sentence


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
    ("changes", "told"),
    [
        *(({"model_revision": value}, "differ in provenance.model_revision") for value in ("def", None)),
        *(({"data_files": value}, "differ in provenance.data_files") for value in ({"train.jsonl": "1" * 64}, {})),
    ],
)
def test_the_same_identity_must_have_read_the_same_model_and_data(changes, told):
    changed = result("c", seed=2)
    changed.provenance.update(changes)
    for odd in (changed, replace(changed, identity=identity(seed=2, rank=4))):  # within one row and between rows
        (reason,) = reasons([result("a"), result("b", seed=1), odd])
        assert told in reason
        assert "run c has" in reason
        assert "run a" not in reason


def test_results_without_provenance_or_of_another_metric_do_not_match():
    silent = replace(result("c", seed=2), provenance={})
    assert any("run c has nothing" in reason for reason in reasons([result("a"), result("b", seed=1), silent]))
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


@pytest.mark.parametrize(
    ("unit", "spent", "over"),
    [
        *(("tokens", *case) for case in ((1234, False), (1235, True), (math.nan, True))),
        # Seconds may run out within a step, and not by far.
        *(("seconds", *case) for case in ((99.0, False), (105.0, False), (130.0, True), (math.nan, True))),
    ],
)
def test_more_tokens_or_seconds_than_granted_are_refused(unit, spent, over):
    made = result("a", budget__queries=None, **{f"budget__{unit}": {"tokens": 1234, "seconds": 100.0}[unit]})
    if unit == "tokens":
        made = replace(made, tokens=spent)
    else:
        made.seconds.update(train=spent, calibration=1.0, step_median=math.nan)
    assert bool(reasons([made])) is over
