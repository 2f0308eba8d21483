"""Choice of train, dev and test among the rows of a Hub dataset: numbers in, numbers out.

train and dev are drawn from the dataset's train split and share no row; test is drawn from its validation split, since
the labels of the benchmarks' own test splits are not public. Rows that stand twice in a dataset are left alone.
"""

import random
import warnings
from dataclasses import dataclass

import numpy as np

from zo_runner.errors import RunWarning, UserError, invalid, one_of
from zo_runner.seeds import fold_in

RULES = ("stream", "mezo")

# Below this many training examples a warning says how to get more.
FEW = 100

# The data stream of `stream`'s test part: the same rows for everyone, so that runs of all seeds are scored on one test.
TEST_SEED = 0


@dataclass(frozen=True)
class Chosen:
    """Row numbers: train and dev of the dataset's train split, test of its validation split."""

    train: list[int]
    dev: list[int]
    test: list[int]


@dataclass(frozen=True)
class Sizes:
    """Requested numbers of examples.

    Raises:
        UserError: a size that is no integer, or below 1.
    """

    num_train: int
    num_dev: int
    num_test: int

    def __post_init__(self) -> None:
        for name in ("num_train", "num_dev", "num_test"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise invalid(f"task.{name}", size, "an integer >= 1")


def random_stream(seed: int, *path: str) -> random.Random:
    """Python's generator at the start of a named stream."""
    return random.Random(fold_in(seed, *path))


def choose(rule: str, seed: int, sizes: Sizes, rows: int, test_rows: int) -> Chosen:
    """Choose rows.

    "stream" shuffles the rows by the data stream `seed`: dev is the first num_dev, train the next num_train, so that a
    larger train changes neither dev nor test. test is a sample that does not depend on the seed.

    "mezo" is the rule of MeZO's code (Malladi et al. 2023): NumPy's legacy permutation of all rows, cut to num_train +
    num_dev; dev is the last num_dev of these, train the rest. test is the beginning of a permutation of the validation
    split by the same seed.

    In both, a validation split of num_test rows or fewer is taken whole and in its own order; MeZO's code takes the
    same rows, permuted.

    Args:
        rule: "stream" or "mezo".
        seed: data stream.
        sizes: what is asked for.
        rows: number of rows of the train split.
        test_rows: number of rows of the validation split.

    Raises:
        UserError: an unknown rule, nothing left to train on, an empty validation split, a seed too large for NumPy.
    """
    if rule not in RULES:
        raise invalid("task.split", rule, one_of(RULES))
    if rows <= sizes.num_dev:
        raise invalid("task.num_dev", sizes.num_dev, f"less than the {rows} rows of the train split, to train on some")
    if test_rows < 1:
        raise UserError("Invalid validation split: no rows. Must hold some, since test is drawn from it.")
    train, dev, test = (_mezo if rule == "mezo" else _stream)(seed, sizes, rows, test_rows)
    if len(train) < sizes.num_train:
        more = "; a smaller task.num_dev leaves more" if len(train) < FEW else ""
        warnings.warn(
            f"{len(train)} training examples instead of task.num_train={sizes.num_train}: the train split has {rows} "
            f"rows, and task.num_dev takes {sizes.num_dev}{more}",
            RunWarning,
            stacklevel=2,
        )
    return Chosen(train, dev, list(range(test_rows)) if test_rows <= sizes.num_test else test)


def _stream(seed: int, sizes: Sizes, rows: int, test_rows: int) -> tuple[list[int], list[int], list[int]]:
    order = list(range(rows))
    random_stream(seed, "data").shuffle(order)
    train = order[sizes.num_dev : sizes.num_dev + sizes.num_train]
    sample = random_stream(TEST_SEED, "data", "test").sample(range(test_rows), min(sizes.num_test, test_rows))
    return train, order[: sizes.num_dev], sorted(sample)


def _mezo(seed: int, sizes: Sizes, rows: int, test_rows: int) -> tuple[list[int], list[int], list[int]]:
    if not 0 <= seed < 2**32:
        raise invalid("seeds.data", seed, "from 0 to 2**32 - 1 with task.split=mezo")
    # Both permutations start from the seed itself: NumPy's legacy generator, whose numbers are frozen.
    drawn = np.random.RandomState(seed).permutation(rows)[: sizes.num_train + sizes.num_dev].tolist()
    test = np.random.RandomState(seed).permutation(test_rows)[: sizes.num_test].tolist()
    return drawn[: -sizes.num_dev], drawn[-sizes.num_dev :], test
