"""Limits over seeds and paired comparisons: known numbers, laws, and nothing made of nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.made_results import result, without_adapter
from zo_runner.reporting.tables.aggregate import ResultRow, sections
from zo_runner.reporting.tables.statistics import counterpart, interval, mean_sd, paired, scores_by_seed

NUMBERS = st.lists(st.floats(0, 1).map(lambda value: round(value, 3)), min_size=2, max_size=8)


def by_seed(*values):
    return {str(seed): value for seed, value in enumerate(values)}


def rows_of(*results):
    ((_, rows),) = sections(results).items()
    return rows


def test_mean_deviation_and_limits_by_hand():
    assert mean_sd([0.5, 0.7, 0.9]) == pytest.approx((0.7, 0.2))  # sqrt((0.2^2 + 0 + 0.2^2) / 2)
    half = 4.3027 / math.sqrt(3)  # t(0.975, 2) = 4.3027
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-4)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        *(([], math.nan), ([0.5], 0.5), ([math.inf, -math.inf], math.nan)),
        *(([1.0, math.inf], math.inf), ([-math.inf, 1.0], -math.inf)),
    ],
)
def test_too_few_or_infinite_values_have_a_mean_and_neither_spread_nor_limits(values, mean):
    found, sd = mean_sd(values)
    assert found == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(end) for end in (sd, *interval(values)))


@given(NUMBERS)
def test_the_interval_is_scipys(values):
    if np.ptp(values) == 0:
        assert interval(values) == pytest.approx((values[0], values[0]))
        return
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values) == pytest.approx(expected)


def test_the_interval_covers_the_truth_in_95_of_100():
    draws = np.random.default_rng(0).normal(0.7, 0.1, size=(2000, 3))
    limits = np.array([interval(list(draw)) for draw in draws])
    covered = ((limits[:, 0] < 0.7) & (limits[:, 1] > 0.7)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)


def test_pairs_are_counted_seed_by_seed():
    found = paired(by_seed(0.9, 0.5, 0.7, 0.6), by_seed(0.8, 0.6, 0.7, 0.5))
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert found.difference == pytest.approx(0.025)
    differences = [0.1, -0.1, 0.0, 0.1]
    assert (found.low, found.high) == pytest.approx(interval(differences))
    assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)

    shared = paired({"0": 0.9, "1": 0.1, "2": 0.7}, {"2": 0.5, "0": 0.8, "5": 0.0})
    assert (shared.n, shared.wins) == (2, 2)
    assert shared.difference == pytest.approx(0.15)
    lower = paired(by_seed(20.0, 30.0), by_seed(25.0, 40.0), higher_is_better=False)
    assert (lower.wins, lower.losses, lower.difference) == (2, 0, -7.5)
    assert paired(by_seed(0.1 + 0.2), by_seed(0.3)).ties == 1  # equal but for rounding


@pytest.mark.parametrize(
    ("ours", "baseline", "difference"),
    [
        ({}, {}, math.nan),
        (by_seed(0.5), {"7": 0.5}, math.nan),
        (by_seed(0.5), by_seed(0.4), 0.1),
        (by_seed(0.5, 0.6, 0.7), by_seed(0.4, 0.5, 0.6), 0.1),  # always 0.1, but for rounding
        (by_seed(0.5, 0.6), by_seed(0.5, 0.6), 0.0),
    ],
    ids=["nothing", "nothing shared", "one seed", "equal differences", "equal scores"],
)
def test_without_spread_there_is_no_test_and_no_warning(ours, baseline, difference):
    found = paired(ours, baseline)
    assert found.difference == pytest.approx(difference, nan_ok=True)
    assert all(math.isnan(value) for value in (found.low, found.high, found.p))
    assert found.wins + found.ties + found.losses == found.n


@given(NUMBERS, NUMBERS)
def test_turning_a_pair_round_turns_its_sign(ours, theirs):
    one, other = paired(by_seed(*ours), by_seed(*theirs)), paired(by_seed(*theirs), by_seed(*ours))
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.p) == pytest.approx((-other.high, other.p), nan_ok=True)


def test_scores_are_there_for_every_run_or_not_at_all():
    (row,) = rows_of(result("a", accuracy=0.1), result("b", seed=1, accuracy=0.9))
    assert scores_by_seed(row, "test", "best") == {"0": 0.1, "1": 0.9}
    untested = result("b", seed=1)
    untested.metrics["test"] = {}
    (row,) = rows_of(result("a"), untested)
    assert scores_by_seed(row, "test", "best") == {}
    assert scores_by_seed(row, "dev", "best") == {"0": 0.5, "1": 0.5}


def named(*results):
    return {row.label: row for row in rows_of(*results)}


def grid(key, values):
    """Results of ar1zo and lora at each value of a key."""
    return [result(f"{name}{v}", method__name=name, **{key: v}) for name in ("ar1zo", "lora") for v in values]


def test_the_baseline_of_the_same_rank_is_the_counterpart():
    rows = named(*grid("rank", (4, 8)))
    for rank in (4, 8):
        assert counterpart(rows[f"ar1zo rank={rank}"], rows.values(), "lora") is rows[f"lora rank={rank}"]
        assert counterpart(rows[f"lora rank={rank}"], rows.values(), "lora") == "baseline"


def test_an_only_row_is_the_counterpart_of_every_rank():
    plain = without_adapter(result("c", method__name="mezo"))
    rows = named(result("a", rank=4), result("b", rank=8), plain)
    assert all(counterpart(rows[f"ar1zo rank={rank}"], rows.values(), "mezo") is rows["mezo"] for rank in (4, 8))
    rows = named(result("a", method__name="lora", rank=4), plain)
    assert counterpart(rows["mezo"], rows.values(), "lora") is rows["lora rank=4"]


def test_rows_without_a_counterpart_say_why():
    plain = without_adapter(result("c", method__name="mezo"))
    rows = named(*(result(str(rank), method__name="lora", rank=rank) for rank in (4, 8)), plain, result("a", rank=16))
    for label in ("mezo", "ar1zo rank=16"):
        why = "no row of lora has its rank, and there are several"
        assert counterpart(rows[label], rows.values(), "lora") == why
    assert counterpart(rows["mezo"], rows.values(), "lozo") == "there is no row of lozo"
    rows = rows_of(result("a"), *(result(f"b{lr}", method__name="lora", method__lr=lr) for lr in (1e-3, 1e-2)))
    assert counterpart(rows[0], rows, "lora") == "it could be paired with several rows of lora"


@pytest.mark.parametrize(("key", "values", "odd"), [("noise.std", (0.0, 0.1), 0.2), ("alpha", (8.0, 16.0), 1.0)])
def test_pairs_share_their_conditions(key, values, odd):
    """A row under noise is never compared with a baseline without it; of several of a rank the one that agrees is."""
    name = key.replace(".", "__")
    made = grid(name, values)
    rows = rows_of(*made)
    for row in rows[:2]:
        other = counterpart(row, rows, "lora")
        assert isinstance(other, ResultRow)
        assert other.identity[key] == row.identity[key]
    rows = rows_of(result("x", **{name: odd}), *made[2:])
    assert counterpart(rows[0], rows, "lora") == f"no row of lora has its {key}"


def test_a_method_that_feels_no_noise_is_paired_with_the_baseline_without_it():
    first_order = result("fo", method__name="fo_sgd")
    del first_order.identity["noise"]
    rows = rows_of(first_order, *(result(f"lora{std}", method__name="lora", noise__std=std) for std in (0.1, 0.0)))
    (row,) = [row for row in rows if row.method == "fo_sgd"]
    other = counterpart(row, rows, "lora")
    assert isinstance(other, ResultRow)
    assert other.identity["noise.std"] == 0.0
