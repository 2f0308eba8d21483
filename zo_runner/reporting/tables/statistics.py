"""Statistics of a table: mean and limits over seeds, and a row against the baseline on the seeds they share. No torch.

    limits   mean ± t(0.975, n - 1) sd / sqrt(n)        sd: sample standard deviation, n seeds
    paired   the same of the differences seed by seed, and the two-sided p of the paired t-test

Limits and p take seeds for independent draws of one normal distribution; p is not corrected for the number of rows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zo_runner.reporting.tables.aggregate import ResultRow, differing

LEVEL = 0.95
# Differences no larger than this are rounding of two equal scores, which are ratios of small counts.
_ROUNDING = 1e-9
# Keys of the identity that a row and its baseline must share: the conditions of the experiment. Where one is missing,
# as noise is for a method that feels none, it is 0.
_CONDITIONS = ("noise.std",)


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where they do not exist. An infinite value makes the mean infinite."""
    if not values:
        return math.nan, math.nan
    if not all(math.isfinite(value) for value in values):
        return sum(values), math.nan
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % t-interval of the mean; NaN for fewer than two values or one that is not finite."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy has no types

    mean, sd = mean_sd(values)
    if math.isnan(sd):
        return math.nan, math.nan
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(len(values))
    return mean - half, mean + half


@dataclass(frozen=True)
class Paired:
    """A row against its baseline, seed by seed.

    Attributes:
        n: seeds that both have.
        wins: seeds on which the row is better.
        ties: seeds on which they are equal.
        losses: seeds on which the baseline is better.
        difference: mean of row minus baseline, in units of the score; NaN without a shared seed.
        low: lower end of its 95 % t-interval; NaN for fewer than two seeds or differences that are all the same.
        high: upper end.
        p: of the two-sided paired t-test; NaN as for `low`.
    """

    n: int
    wins: int
    ties: int
    losses: int
    difference: float
    low: float
    high: float
    p: float


def paired(ours: Mapping[str, float], baseline: Mapping[str, float], *, higher_is_better: bool = True) -> Paired:
    """Compare two rows on the seeds they share.

    Args:
        ours: finite score by seed.
        baseline: the same of the baseline.
        higher_is_better: False turns wins and losses round and leaves the difference.
    """
    from scipy.stats import ttest_rel  # type: ignore[import-untyped]  # scipy has no types

    shared = sorted(set(ours) & set(baseline))
    differences = [ours[seed] - baseline[seed] for seed in shared]
    above = sum(difference > _ROUNDING for difference in differences)
    below = sum(difference < -_ROUNDING for difference in differences)
    wins, losses = (above, below) if higher_is_better else (below, above)
    low = high = p = math.nan
    if differences and max(differences) - min(differences) > _ROUNDING:
        low, high = interval(differences)
        p = float(ttest_rel([ours[seed] for seed in shared], [baseline[seed] for seed in shared]).pvalue)
    mean, _ = mean_sd(differences)
    return Paired(len(shared), wins, len(shared) - wins - losses, losses, mean, low, high, p)


def scores_by_seed(row: ResultRow, split: str, point: str) -> dict[str, float]:
    """Score by seed of the task's metric; empty unless every averaged run of the row has it."""
    found = {result.streams: result.score(split, point) for result in row.done}
    scores = {seed: score for seed, score in found.items() if score is not None}
    return scores if len(scores) == len(found) else {}


def counterpart(row: ResultRow, rows: Iterable[ResultRow], baseline: str) -> ResultRow | str:
    """The row of method `baseline` that `row` is paired with, or a phrase that says why there is none.

    Conditions must be the same. Of several rows the one of the same rank is taken, and of these the one that agrees
    with `row` in everything but the method.
    """
    if row.method == baseline:
        return "baseline"
    candidates = [other for other in rows if other.method == baseline]
    if not candidates:
        return f"there is no row of {baseline}"
    candidates = [other for other in candidates if _agree(row, other, _CONDITIONS, missing=0)]
    if not candidates:
        return f"no row of {baseline} has its {' and '.join(_CONDITIONS)}"
    if len(candidates) > 1:
        candidates = [other for other in candidates if other.rank == row.rank]
        if not candidates:
            return f"no row of {baseline} has its rank, and there are several"
    asked = [key for key in differing(candidates) if not key.startswith("method.")]
    candidates = [other for other in candidates if _agree(row, other, asked)]
    if not candidates:
        return f"no row of {baseline} has its {' and '.join(asked)}"
    return candidates[0] if len(candidates) == 1 else f"it could be paired with several rows of {baseline}"


def _agree(one: ResultRow, other: ResultRow, keys: Iterable[str], missing: Any = None) -> bool:
    return all(one.identity.get(key, missing) == other.identity.get(key, missing) for key in keys)
