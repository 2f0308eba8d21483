"""Throughput of an evaluation of 2-option classification: the literature's plain rule against ours.

Plain: one sequence at a time, one forward per option, logits at every position (`tests/plain_scoring.py`). Ours:
batches of 16, one forward for both options, logits at one position. Both score the same examples, and must agree.
"""

import time
from collections.abc import Callable

from benchmarks.rounds import TimedSteps, Variant, in_turn
from benchmarks.settings import SCORING, Setting
from tests import plain_scoring
from zo_runner.models.encoding import Encoder
from zo_runner.models.evaluator import Evaluator

BATCH = 16


def throughput(setting: Setting, *, rounds: int, examples: int) -> tuple[dict[str, list[float]], float]:
    """Seconds per example of both ways in every round, and the largest gap of two scores, in nats per token."""
    base, scored = setting.base, setting.scored[:examples]
    encoded = Encoder(base.tokenizer, SCORING, base.context).encode(scored, "dev")
    evaluator = Evaluator(base.model, SCORING, pad_id=base.pad_id, context=base.context)

    def plain() -> list[list[float]]:
        return [
            plain_scoring.option_scores(base.model, base.tokenizer, example.prompt, example.options)
            for example in scored
        ]

    def ours() -> list[list[float]]:
        return evaluator.option_sums(encoded, BATCH)

    return in_turn({"plain": _variant(plain), "ours": _variant(ours)}, rounds=rounds, steps=len(scored))


def _variant(score: Callable[[], list[list[float]]]) -> Variant:
    """Scoring as a variant: a step is an example, and its scores are what must agree."""

    def take(steps: range) -> TimedSteps:
        start = time.perf_counter()
        scores = score()
        seconds = (time.perf_counter() - start) / len(steps)
        return TimedSteps(seconds, [value for row in scores for value in row])

    return take
