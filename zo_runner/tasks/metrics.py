"""Metrics of tasks: their direction and format, and the agreement of a generated answer with the gold answers.

    F1 = 2 P R / (P + R),   P = |predicted ∩ gold| / |predicted|,   R = |predicted ∩ gold| / |gold|   (tokens)

metric                        tokens of a span   several spans of one gold answer
f1, exact_match               a multiset         alternatives, as in MeZO
drop_f1, drop_exact_match     a set              parts of one answer, all of which are wanted

Units: every score of an answer is a ratio in [0, 1] and 1 is best. A prediction gets its best score over the golds,
    which for F1 and exact match need not be on the same one.
Nothing in common is F1 0. Where normalisation leaves nothing of prediction and gold, exact match is 1, SQuAD's F1
    still 0 and DROP's 1, as in the official scripts.
Differs from MeZO's code: the golds "CANNOTANSWER" and "no answer" are texts like any other.
Source: Rajpurkar et al. 2016, arXiv:1606.05250, and its v1.1 script (SQuAD); Dua et al. 2019, arXiv:1903.00161, and
    AllenNLP's drop_eval (DROP); Malladi et al. 2023, arXiv:2305.17333 (alternatives).
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Answers = tuple[tuple[str, ...], ...]

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only


@dataclass(frozen=True)
class Metric:
    """Direction and format of a metric.

    Attributes:
        name: as in result.json.
        higher_is_better: False turns every comparison round.
        percent: True for a ratio from 0 to 1, written in percent; False for a number without upper bound.
    """

    name: str
    higher_is_better: bool = True
    percent: bool = True

    @property
    def words(self) -> str:
        """The name with spaces."""
        return self.name.replace("_", " ")

    @property
    def unit(self) -> str:
        """Unit in the heading of a column of scores."""
        return "%" if self.percent else self.words

    @property
    def axis(self) -> str:
        """Name and unit on the axis of a figure."""
        return f"{self.words} (%)" if self.percent else self.words

    @property
    def scale(self) -> float:
        """Factor from a score to the number that is written."""
        return 100.0 if self.percent else 1.0

    @property
    def digits(self) -> int:
        """Decimals of the number that is written."""
        return 1 if self.percent else 2

    @property
    def most(self) -> float:
        """Highest possible score."""
        return 1.0 if self.percent else math.inf

    def order(self, score: float) -> float:
        """A number that is larger for a better score."""
        return score if self.higher_is_better else -score

    def text(self, score: float) -> str:
        """The score in a sentence, with the metric's name unless it is accuracy."""
        number = f"{score * self.scale:.{self.digits}f}{'%' if self.percent else ''}"
        return number if self.name == "accuracy" else f"{number} {self.words}"


def token_f1(prediction: str, answers: Answers) -> float:
    """SQuAD's F1 of two multisets of tokens, the best over every span of every gold answer.

    Raises:
        ValueError: no gold answer, or one without spans.
    """
    predicted = Counter(_tokens(prediction))
    golds = [Counter(_tokens(span)) for answer in _checked(answers) for span in answer]
    return max(_f1((predicted & gold).total(), predicted.total(), gold.total()) for gold in golds)


def exact_match(prediction: str, answers: Answers) -> float:
    """1.0 if a span of a gold answer has the prediction's tokens in the same order, else 0.0.

    Raises:
        ValueError: no gold answer, or one without spans.
    """
    return float(any(_tokens(span) == _tokens(prediction) for answer in _checked(answers) for span in answer))


def drop_f1(prediction: str | tuple[str, ...], answers: Answers) -> float:
    """DROP's F1: mean F1 of the best one-to-one alignment of predicted and gold spans, rounded to 2 decimals.

    A span without partner counts as 0, and so does a pair whose gold span has numbers of which the predicted one has
    none. A gold answer whose first span is blank matches nothing.

    Args:
        prediction: the predicted spans. A generated text is one span, which gets at most 1/n of a gold with n spans.
        answers: gold answers, each a tuple of spans.

    Raises:
        ValueError: no gold answer, or one without spans.
    """
    predicted = [set(tokens) for tokens in _drop_spans(prediction)]
    golds = [[set(tokens) for tokens in gold] for gold in _drop_golds(answers)]
    return max((_aligned_f1(predicted, gold) for gold in golds), default=0.0)


def drop_exact_match(prediction: str | tuple[str, ...], answers: Answers) -> float:
    """1.0 if a gold answer has as many spans and the same set of them, normalised, else 0.0. Arguments as of `drop_f1`.

    Repetitions are not compared: (x, x, y) matches (x, y, y), with an F1 below 1.
    """
    predicted = _drop_spans(prediction)
    return float(any(len(gold) == len(predicted) and set(gold) == set(predicted) for gold in _drop_golds(answers)))


ANSWER_METRICS: Mapping[str, Callable[[str, Answers], float]] = {
    "f1": token_f1,
    "exact_match": exact_match,
    "drop_f1": drop_f1,
    "drop_exact_match": drop_exact_match,
}

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy"),
        *map(Metric, ANSWER_METRICS),
        Metric("perplexity", higher_is_better=False, percent=False),
    )
}


def metric_of(name: str) -> Metric:
    """The metric of a name; one that nobody registered is a ratio, and higher is better."""
    return METRICS.get(name) or Metric(name)


def _checked(answers: Answers) -> Answers:
    if not answers or not all(answers):
        raise ValueError(f"Invalid answers: {answers!r}. Must be at least one gold answer, each of at least one span.")
    return answers


def _f1(shared: int, predicted: int, gold: int) -> float:
    if not shared:
        return 0.0
    # 2 shared / (predicted + gold) is the same number, but DROP's rounding sees the difference in the last bit.
    precision, recall = shared / predicted, shared / gold
    return 2 * precision * recall / (precision + recall)


def _tokens(text: str) -> list[str]:
    """SQuAD's tokens: lower case, without punctuation and articles, split at white space."""
    return ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split()


def _float_form(word: str) -> str | None:
    """A number as a float is printed, so that 7 and 7.0 agree; None for what is no number to Python."""
    try:
        return str(float(word))
    except ValueError:
        return None


def _drop_spans(spans: str | tuple[str, ...]) -> list[tuple[str, ...]]:
    """DROP's tokens of every span."""
    return [_drop_tokens(span) for span in ((spans,) if isinstance(spans, str) else spans)]


def _drop_golds(answers: Answers) -> list[list[tuple[str, ...]]]:
    """DROP's tokens of every span of every gold answer that is not blank."""
    return [_drop_spans(answer) for answer in _checked(answers) if answer[0].strip()]


def _drop_tokens(span: str) -> tuple[str, ...]:
    """Words between spaces and hyphens, each a number or else in lower case, without punctuation and articles.

    What has lost its punctuation may then be a number: "1,000" is 1000.0, and by the same rule "$5.50" is 550.0.
    """
    tokens: list[str] = []
    for word in re.split("[ -]", span):
        bare = word.lower().translate(WITHOUT_PUNCTUATION)
        tokens += ARTICLES.sub(" ", _float_form(word) or _float_form(bare) or bare).split()
    return tuple(tokens)


def _bag_f1(predicted: set[str], gold: set[str]) -> float:
    numbers = {token for token in gold if _float_form(token)}
    if numbers and not numbers & predicted:
        return 0.0
    return _f1(len(predicted & gold), len(predicted), len(gold)) if predicted or gold else 1.0


def _aligned_f1(predicted: list[set[str]], gold: list[set[str]]) -> float:
    import numpy as np
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # scipy has no types

    scores = np.array([[_bag_f1(p, g) for p in predicted] for g in gold])
    rows, columns = linear_sum_assignment(scores, maximize=True)
    aligned = np.zeros(max(scores.shape))
    aligned[rows] = scores[rows, columns]
    return float(aligned.mean().round(2))  # NumPy rounds half cents otherwise than Python does
