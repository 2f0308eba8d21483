"""Which rows become train, dev and test."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zo_runner.errors import RunWarning, UserError
from zo_runner.tasks.splits import RULES, Sizes, choose

# numpy.random.RandomState(seed).permutation(n), as NumPy has drawn it since 2006
LEGACY = {
    (0, 10): [2, 8, 4, 9, 1, 6, 7, 3, 0, 5],
    (0, 6): [5, 2, 1, 3, 0, 4],
    (7, 12): [7, 10, 2, 5, 0, 1, 11, 8, 3, 6, 9, 4],
}


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_train_and_dev_share_no_row_and_test_has_none_twice(rule, data):
    rows, test_rows = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 60))
    sizes = Sizes(data.draw(st.integers(1, 60)), data.draw(st.integers(1, rows - 1)), data.draw(st.integers(1, 60)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        chosen = choose(rule, data.draw(st.integers(0, 9)), sizes, rows, test_rows)
    assert len(chosen.dev) == sizes.num_dev
    assert len(chosen.train) == min(sizes.num_train, rows - sizes.num_dev)
    assert len({*chosen.train, *chosen.dev}) == len(chosen.train) + len(chosen.dev)
    assert {*chosen.train, *chosen.dev} <= set(range(rows))
    assert len(set(chosen.test)) == len(chosen.test) == min(sizes.num_test, test_rows)
    assert set(chosen.test) <= set(range(test_rows))


def test_mezos_rule_cuts_numpys_legacy_permutation():
    chosen = choose("mezo", 0, Sizes(4, 3, 2), 10, 6)
    assert chosen.train + chosen.dev == LEGACY[0, 10][:7]
    assert chosen.dev == LEGACY[0, 10][4:7]
    assert chosen.test == LEGACY[0, 6][:2]
    assert choose("mezo", 7, Sizes(5, 2, 9), 12, 10).train == LEGACY[7, 12][:5]


def test_mezos_rule_gives_dev_its_whole_part_and_train_what_is_left():
    with pytest.warns(RunWarning, match=r"^7 training examples instead of task\.num_train=9: the train split has 10"):
        chosen = choose("mezo", 0, Sizes(9, 3, 6), 10, 6)
    assert (chosen.train, chosen.dev) == (LEGACY[0, 10][:7], LEGACY[0, 10][7:])


@pytest.mark.parametrize("rule", RULES)
def test_a_validation_split_that_is_no_larger_is_taken_whole_and_in_its_own_order(rule):
    assert choose(rule, 0, Sizes(4, 3, 6), 10, 6).test == [0, 1, 2, 3, 4, 5]
    assert choose(rule, 0, Sizes(4, 3, 60), 10, 6).test == [0, 1, 2, 3, 4, 5]


def test_a_larger_train_changes_neither_dev_nor_the_train_before():
    small, large = (choose("stream", 3, Sizes(n, 10, 5), 200, 50) for n in (20, 100))
    assert small.dev == large.dev
    assert small.train == large.train[:20]


def test_the_seed_moves_train_and_dev_and_test_is_the_same_for_everyone():
    one, again, other = (choose("stream", seed, Sizes(100, 50, 30), 200, 60) for seed in (0, 0, 1))
    assert one == again
    assert set(one.train) != set(other.train)
    assert set(one.dev) != set(other.dev)
    assert one.test == other.test == sorted(one.test)
    # MeZO's code draws its test rows by the same seed as its training rows.
    assert choose("mezo", 0, Sizes(9, 9, 9), 50, 50).test != choose("mezo", 1, Sizes(9, 9, 9), 50, 50).test


def test_the_rows_of_a_seed_never_change():
    chosen = choose("stream", 0, Sizes(3, 3, 3), 1000, 1000)
    assert (chosen.train, chosen.dev, chosen.test) == ([834, 12, 189], [882, 707, 744], [81, 227, 243])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("num_dev", "told"),
    [
        (500, "54 training examples instead of task.num_train=1000: the train split has 554 rows, and task.num_dev "
              "takes 500; a smaller task.num_dev leaves more"),
        (100, "454 training examples instead of task.num_train=1000: the train split has 554 rows, and task.num_dev "
              "takes 100"),
    ],
)  # fmt: skip
def test_fewer_training_examples_than_asked_for_are_never_silent(rule, num_dev, told):
    with pytest.warns(RunWarning) as caught:
        choose(rule, 0, Sizes(1000, num_dev, 104), 554, 104)
    assert [str(warning.message) for warning in caught] == [told]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rows", [0, 99, 100])
def test_a_dev_that_leaves_nothing_to_train_on_is_refused(rule, rows):
    with pytest.raises(UserError, match=rf"^Invalid task\.num_dev: 100\. Must be less than the {rows} rows of the tr"):
        choose(rule, 0, Sizes(10, 100, 10), rows, 10)


def test_an_unknown_rule_and_a_seed_beyond_numpy_are_refused():
    with pytest.raises(UserError, match=r"^Invalid task\.split: 'random'\. Must be one of mezo, stream\."):
        choose("random", 0, Sizes(1, 1, 1), 10, 10)
    with pytest.raises(UserError, match=r"^Invalid seeds\.data: 4294967296\. Must be from 0 to 2\*\*32 - 1"):
        choose("mezo", 2**32, Sizes(1, 1, 1), 10, 10)


@pytest.mark.parametrize("size", ["num_train", "num_dev", "num_test"])
def test_no_part_may_be_empty(size):
    with pytest.raises(UserError, match=rf"^Invalid task\.{size}: 0\. Must be an integer >= 1\."):
        Sizes(**{"num_train": 1, "num_dev": 1, "num_test": 1, size: 0})
