"""The choice of stage one: the configuration that did best on dev. No torch."""

import math
import statistics
from collections.abc import Sequence

from zo_runner.records.result import TrainResult
from zo_runner.tasks.metrics import metric_of

# Points of a run whose dev score can choose.
POINTS = ("best", "last")


def choose(tried: Sequence[Sequence[TrainResult]], point: str) -> int | None:
    """The configuration that did best on dev: by the mean over the tuning seeds of the first metric, then of the loss.

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


def _score(results: Sequence[TrainResult], point: str) -> tuple[float, float]:
    """Mean score and mean negative loss, larger is better; -inf where a run diverged or has none."""
    found = [
        (metric_of(result.metric).order(score), -loss)
        for result in results
        if result.status == "done"
        and (score := result.score("dev", point)) is not None
        and (loss := result.score("dev", point, "loss")) is not None
        and math.isfinite(score + loss)
    ]
    if not found or len(found) < len(results):
        return -math.inf, -math.inf
    return statistics.fmean(score for score, _ in found), statistics.fmean(loss for _, loss in found)
