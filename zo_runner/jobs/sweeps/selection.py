"""The choice of stage one: which configuration did best on dev. No torch."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Points of a run whose dev score can choose.
POINTS = ("best", "last")


def choose(tried: Sequence[Sequence[Mapping[str, Any]]], point: str) -> int | None:
    """Which configuration did best on dev: the mean over the tuning seeds of the task's first metric, then of the loss.

    A configuration with a diverged run loses to every one without. Test is not looked at.

    Args:
        tried: for each configuration the results of its tuning seeds.
        point: "best", the best dev score of a run, or "last", the one at the end of its budget.

    Returns:
        The index, or None where all diverged.
    """
    scores = [_score(results, point) for results in tried]
    best = max(range(len(scores)), key=lambda i: scores[i])
    return best if math.isfinite(scores[best][0]) else None


def _score(results: Sequence[Mapping[str, Any]], point: str) -> tuple[float, float]:
    if not results or any(result["status"] != "done" for result in results):
        return -math.inf, -math.inf
    metric = results[0]["metric"]
    sign = -1.0 if metric == "perplexity" else 1.0
    points = [result["metrics"]["dev"][point] for result in results]
    score = sign * statistics.fmean(p[metric] for p in points), -statistics.fmean(p["loss"] for p in points)
    return score if all(map(math.isfinite, score)) else (-math.inf, -math.inf)
