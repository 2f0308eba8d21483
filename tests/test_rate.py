"""The rate that follows the curvature."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zo_runner.training.learning_rate import CUT, WINDOW, CurvatureReading, CurvatureSchedule

sizes = st.floats(1e-3, 1e3)


def rate(curvatures, **options):
    return CurvatureSchedule(**{"lr_scale": 0.1, "eps": 0.5, "every": 4} | options, curvatures=curvatures)


def feed(following, curvature):
    """A reading of that curvature: l0 = 0, so that (l+ + l-) / 2 = h eps^2 / 2."""
    following.add(CurvatureReading(0.0), curvature * following.eps**2 / 2)


def test_the_first_rate_is_the_scale_over_the_mean_size_of_the_probes():
    assert rate([2.0, -4.0, 6.0]).lr == pytest.approx(0.1 / 4)


@given(st.lists(sizes, min_size=1, max_size=40), sizes)
def test_a_steady_curvature_above_the_first_sets_the_rate(first, more):
    steady = sum(first) / len(first) + more
    following = rate(first)
    for sign in (1, -1) * (WINDOW // 2):
        feed(following, sign * steady)
    assert following.lr == pytest.approx(0.1 / steady)


@given(st.lists(sizes, min_size=1, max_size=40), st.lists(sizes, max_size=40))
def test_the_rate_never_rises_above_the_one_of_the_probes(first, later):
    following = rate(first)
    measured = 0.1 / (sum(first) / len(first))
    for curvature in later:
        feed(following, curvature)
        assert following.lr <= measured * (1 + 1e-12)


@given(st.lists(sizes, min_size=WINDOW, max_size=WINDOW), st.floats(1e4, 1e9))
def test_outliers_as_few_as_are_cut_do_not_matter_however_large(first, outlier):
    following, larger = rate(first), rate(first)
    for _ in range(CUT):
        feed(following, outlier)
        feed(larger, 1e6 * outlier)
    assert following.lr == larger.lr


def test_three_large_readings_lower_the_rate_at_once_and_not_for_ever():
    following = rate([1.0] * WINDOW)
    for _ in range(CUT + 1):
        feed(following, 100.0)
    assert following.lr < 0.1 / 10
    for _ in range(WINDOW):
        feed(following, 1.0)
    assert following.lr == pytest.approx(0.1)


def test_it_is_never_above_the_most_that_is_allowed():
    following = rate([1.0], lr_max=0.05)
    assert following.lr == 0.05
    for _ in range(WINDOW):
        feed(following, 4.0)
    assert following.lr == pytest.approx(0.1 / 4)


def test_it_scales_as_the_scale():
    assert rate([3.0], lr_scale=0.3).lr == pytest.approx(3 * rate([3.0]).lr)


def test_it_reads_every_so_many_steps_from_the_first():
    assert [step for step in range(10) if rate([1.0], every=4).due(step)] == [0, 4, 8]
