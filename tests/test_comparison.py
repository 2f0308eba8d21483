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


def test_mean_and_sample_deviation():
    assert mean_sd([0.5, 0.7, 0.9]) == pytest.approx((0.7, 0.2))  # sqrt((0.2^2 + 0 + 0.2^2) / 2)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_too_few_values_have_no_spread_and_no_limits(values):
    mean, sd = mean_sd(values)
    assert mean == 0.5 if values else math.isnan(mean)
    assert math.isnan(sd)
    assert all(math.isnan(end) for end in interval(values))


@pytest.mark.parametrize(
    ("values", "mean"), [([1.0, math.inf], math.inf), ([-math.inf, 1.0], -math.inf), ([math.inf, -math.inf], math.nan)]
)
def test_infinite_values_have_an_infinite_mean_and_no_limits(values, mean):
    assert mean_sd(values)[0] == mean or math.isnan(mean)
    assert math.isnan(mean_sd(values)[1])
    assert all(math.isnan(end) for end in interval(values))


def test_the_interval_of_three_seeds_is_that_of_the_t_tables():
    low, high = interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.3027
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


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


def test_only_shared_seeds_are_compared():
    found = paired({"0": 0.9, "1": 0.1, "2": 0.7}, {"2": 0.5, "0": 0.8, "5": 0.0})
    assert (found.n, found.wins) == (2, 2)
    assert found.difference == pytest.approx(0.15)


def test_pairing_follows_seeds_and_not_their_order():
    forwards = paired({"0": 0.9, "1": 0.2}, {"0": 0.8, "1": 0.1})
    assert forwards == paired({"1": 0.2, "0": 0.9}, {"0": 0.8, "1": 0.1})
    assert forwards.wins == 2


def test_a_metric_where_lower_is_better_turns_wins_and_losses_round():
    found = paired(by_seed(20.0, 30.0), by_seed(25.0, 40.0), higher_is_better=False)
    assert (found.wins, found.losses, found.difference) == (2, 0, -7.5)


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


def test_scores_that_are_equal_but_for_rounding_tie():
    assert paired(by_seed(0.1 + 0.2), by_seed(0.3)).ties == 1


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


def test_the_baseline_of_the_same_rank_is_the_counterpart():
    rows = named(
        *(result(f"{name}{rank}", method__name=name, rank=rank) for name in ("ar1zo", "lora") for rank in (4, 8))
    )
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


def test_pairs_share_their_conditions():
    """A row under noise is never compared with a baseline without it."""
    made = [
        result(f"{name}{std}", method__name=name, noise__std=std) for name in ("ar1zo", "lora") for std in (0.0, 0.1)
    ]
    rows = rows_of(*made)
    for row in rows[:2]:
        other = counterpart(row, rows, "lora")
        assert isinstance(other, ResultRow)
        assert other.identity["noise.std"] == row.identity["noise.std"]
    rows = rows_of(*made[:2], made[3])
    assert counterpart(rows[0], rows, "lora") == "no row of lora has its noise.std"


def test_a_method_that_feels_no_noise_is_paired_with_the_baseline_without_it():
    first_order = result("fo", method__name="fo_sgd")
    del first_order.identity["noise"]
    rows = rows_of(first_order, *(result(f"lora{std}", method__name="lora", noise__std=std) for std in (0.1, 0.0)))
    (row,) = [row for row in rows if row.method == "fo_sgd"]
    other = counterpart(row, rows, "lora")
    assert isinstance(other, ResultRow)
    assert other.identity["noise.std"] == 0.0


def test_of_several_rows_of_a_rank_the_one_that_agrees_is_taken():
    made = [
        result(f"{name}{alpha}", method__name=name, alpha=alpha) for name in ("ar1zo", "lora") for alpha in (8.0, 16.0)
    ]
    rows = rows_of(*made)
    for row in rows[:2]:
        other = counterpart(row, rows, "lora")
        assert isinstance(other, ResultRow)
        assert other.identity["alpha"] == row.identity["alpha"]
    rows = rows_of(result("x", alpha=1.0), *made[2:])
    assert counterpart(rows[0], rows, "lora") == "no row of lora has its alpha"


def test_a_grid_of_the_baseline_is_no_baseline():
    rows = rows_of(result("a"), *(result(f"b{lr}", method__name="lora", method__lr=lr) for lr in (1e-3, 1e-2)))
    assert counterpart(rows[0], rows, "lora") == "it could be paired with several rows of lora"
