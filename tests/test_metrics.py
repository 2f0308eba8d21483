"""Answer metrics: hand-computed cases, the laws they obey, and DROP's rules one by one."""

import itertools
import math
import string
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zo_runner.tasks.metrics import ANSWER_METRICS, METRICS, drop_exact_match, drop_f1, exact_match, metric_of, token_f1

WORDS = ["a", "An", "THE", "red", "Red", "red.", "blue", "blue-", "it's", "its", "theme", "3", "3.0", "1,000", "'", "ß"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=12)
answer_lists = st.lists(st.lists(texts, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)
law = settings(deadline=None, max_examples=200)  # the first call imports SciPy
every_metric = pytest.mark.parametrize("metric", ANSWER_METRICS.values(), ids=ANSWER_METRICS.keys())


def one(*spans):
    """One gold answer."""
    return (spans,)


# Direction and format


def test_a_metric_is_written_in_percent_unless_it_is_perplexity():
    for name, text, unit, axis, most in (
        ("accuracy", "87.5%", "%", "accuracy (%)", 1.0),
        ("exact_match", "87.5% exact match", "%", "exact match (%)", 1.0),
        ("perplexity", "0.88 perplexity", "perplexity", "perplexity", math.inf),
        ("of_my_own", "87.5% of my own", "%", "of my own (%)", 1.0),
    ):
        metric = metric_of(name)
        assert (metric.text(0.875), metric.unit, metric.axis, metric.most) == (text, unit, axis, most)
    assert [name for name, metric in METRICS.items() if metric.order(2.0) < metric.order(1.0)] == ["perplexity"]
    assert set(METRICS) == {"accuracy", "perplexity", *ANSWER_METRICS}


# All answer metrics


@every_metric
@law
@given(texts, answer_lists, answer_lists)
def test_the_score_of_several_golds_is_a_ratio_and_the_best_of_them(metric, prediction, some, others):
    score = metric(prediction, some + others)
    assert isinstance(score, float)
    assert 0 <= score <= 1
    assert score == max(metric(prediction, some), metric(prediction, others))


@every_metric
@law
@given(texts, texts)
def test_case_articles_punctuation_and_white_space_do_not_count(metric, prediction, gold):
    loud = "".join(character.upper() if character.isascii() else character for character in prediction)
    assert metric(f" the  {loud} , an ", one(gold)) == metric(prediction, one(gold))
    assert metric(prediction, one(f"{gold} red a .")) == metric(prediction, one(f"{gold} red"))


@every_metric
@pytest.mark.parametrize("answers", [(), ((),), (("red",), ())])
def test_a_score_needs_gold_answers_with_spans(metric, answers):
    with pytest.raises(ValueError, match=r"^Invalid answers: "):
        metric("red", answers)


# SQuAD


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("the Denver Broncos", "Denver Broncos!", 1.0),
        ("Broncos of Denver", "Denver Broncos", 2 * (2 / 3) * (2 / 2) / (2 / 3 + 2 / 2)),  # 0.8
        ("in 1999", "on a 1999", 2 * (1 / 2) * (1 / 2) / (1 / 2 + 1 / 2)),  # 0.5
        ("no no no", "no no maybe", 2 / 3),  # multisets: two of three, three of three would be a set's answer
        ("no", "no no no", 0.5),  # P = 1, R = 1/3
        ("no", "no answer", 2 / 3),  # no more than a text, where MeZO's code gives 0
        ("touch-down", "touchdown", 1.0),  # a hyphen vanishes and does not split
        ("1,000", "1000", 1.0),
        ("7", "7.0", 0.0),  # "7" against "70": SQuAD knows no numbers
        ("can't", "cant", 1.0),
        ("theme", "me", 0.0),  # an article is a whole word
        ("the-me", "me", 0.0),  # punctuation goes first: "theme"
        ("caf\u00e9 \u2013", "caf\u00e9", 2 / 3),  # a dash that is not ASCII stays
        ("red\tthe\nblue", "red blue", 1.0),
        ("red", "blue", 0.0),
    ],
)
def test_token_f1(prediction, gold, expected):
    assert token_f1(prediction, one(gold)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "prediction", "gold", "expected"),
    [
        (exact_match, "An  Apple.", "apple", 1.0),
        (exact_match, "red blue", "blue red", 0.0),
        (exact_match, "red", "red red", 0.0),
        (exact_match, "U.S.", "us", 1.0),
        (drop_exact_match, "1,000", "1000.0", 1.0),
        (drop_exact_match, "the 30-yard", "30 Yard", 1.0),
        (drop_exact_match, "blue red", "red blue", 0.0),
        (drop_exact_match, "red", "red red", 0.0),  # as bags the same, as texts not
        (drop_exact_match, "7", "8", 0.0),
    ],
)
def test_exact_match_of_one_span(metric, prediction, gold, expected):
    assert metric(prediction, one(gold)) == expected


@pytest.mark.parametrize(
    ("prediction", "gold", "f1", "match", "drop"),
    [
        ("", "red", 0.0, 0.0, 0.0),
        ("the", "red", 0.0, 0.0, 0.0),
        ("red", "The", 0.0, 0.0, 0.0),
        ("", "The", 0.0, 1.0, 1.0),
        ("a!", "The", 0.0, 1.0, 1.0),
    ],
)
def test_texts_of_which_normalisation_leaves_nothing(prediction, gold, f1, match, drop):
    assert token_f1(prediction, one(gold)) == f1
    assert exact_match(prediction, one(gold)) == match
    assert drop_f1(prediction, one(gold)) == drop_exact_match(prediction, one(gold)) == drop


def sorted_tokens(text):
    """SQuAD's tokens of ASCII text, where a word boundary is white space once the punctuation has gone."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return sorted(word for word in kept.split() if word not in ("a", "an", "the"))


def merged_f1(first, second):
    """Token F1 by one walk along two sorted lists."""
    i = j = shared = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            i, j, shared = i + 1, j + 1, shared + 1
        elif first[i] < second[j]:
            i += 1
        else:
            j += 1
    return 2 * shared / (len(first) + len(second)) if shared else 0.0


ascii_texts = st.lists(st.sampled_from([*WORDS[:-1], "a\tb", "-"]) | st.text(string.printable, max_size=4), max_size=8)


@law
@given(ascii_texts.map(" ".join), st.lists(ascii_texts.map(" ".join), min_size=1, max_size=3))
def test_token_f1_is_that_of_two_sorted_lists(prediction, spans):
    """So it is symmetric, and knows no order; an exact match has F1 1, unless nothing is left."""
    first, seconds = sorted_tokens(prediction), [sorted_tokens(span) for span in spans]
    expected = max(merged_f1(first, second) for second in seconds)
    assert token_f1(prediction, one(*spans)) == pytest.approx(expected, rel=1e-12)
    if exact_match(prediction, one(*spans)) and first:
        assert token_f1(prediction, one(*spans)) == 1


@pytest.mark.parametrize("metric", [token_f1, exact_match])
@law
@given(texts, answer_lists)
def test_for_squad_every_span_of_every_gold_is_an_alternative(metric, prediction, answers):
    assert metric(prediction, answers) == max(metric(prediction, one(span)) for gold in answers for span in gold)


# DROP


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("1,000", "1000", 1.0),  # both 1000.0
        ("7", "7.0", 1.0),
        ("7%", "7", 1.0),
        (".5", "0.50", 1.0),
        ("12.", "12", 1.0),
        ("$5.50", "5.5", 0.0),  # no number as it stands, 550.0 without its punctuation
        ("$5.50", "550", 1.0),
        ("-4", "4", 1.0),  # the minus is a hyphen, where words end
        ("30-yard", "30 yard", 1.0),
        ("touch-down", "touchdown", 0.0),
        ("80-yard", "80 yards", 0.5),
        ("the 80 Yards!", "80 yards", 1.0),
        ("red red blue", "red blue blue", 1.0),  # a set, where SQuAD has a multiset
        ("in May 1999", "May 1999", 0.8),  # P = 2/3, R = 1
        ("May", "May 1999", 0.0),  # the gold's numbers are missing: without the rule 0.67
        ("May 1998", "May 1999", 0.0),  # 0.5 without the rule
        ("4 May 1999", "May 1999 12", 0.67),  # one number in common is enough
        ("May 1999", "May", 0.67),  # only the gold's numbers are asked for
        ("three", "3", 0.0),
        ("red\n5", "5", 0.0),  # a line break ends no word, so that this 5 is not made 5.0
        ("red\n5", "red", 0.67),  # but it ends a token
    ],
)
def test_drop_f1_of_one_span(prediction, gold, expected):
    assert drop_f1(prediction, one(gold)) == expected


@pytest.mark.parametrize(
    ("prediction", "gold", "f1", "match"),
    [
        (("red", "blue"), ("blue", "red"), 1.0, 1.0),
        (("red",), ("red", "blue"), 0.5, 0.0),  # (1 + 0) / 2
        (("red", "blue", "x"), ("red",), 0.33, 0.0),  # 1 / 3
        (("red", "blue"), ("red", "blue", "x"), 0.67, 0.0),  # 2 / 3
        ("red blue", ("red", "blue"), 0.33, 0.0),  # one span: (2/3 + 0) / 2
        (("x y", "x"), ("x", "x y"), 1.0, 1.0),  # in the order they come (2/3 + 2/3) / 2
        (("x y", "y"), ("x y z", "x"), 0.58, 0.0),  # (2/3 + 1/2) / 2; the best pair first would be (4/5 + 0) / 2
        (("red", "red", "blue"), ("red", "blue", "blue"), 0.67, 1.0),
        ((), ("red",), 0.0, 0.0),
        (("4 yards", "9 yards"), ("4 yards", "5 yards"), 0.5, 0.0),  # (1 + 0) / 2, as 9 is not 5
        (("4", "9 yards"), ("4 yards", "5"), 0.33, 0.0),  # (2/3 + 0) / 2
    ],
)
def test_drop_aligns_the_spans_of_one_gold(prediction, gold, f1, match):
    assert drop_f1(prediction, one(*gold)) == f1
    assert drop_exact_match(prediction, one(*gold)) == match


def test_drop_takes_the_best_gold_for_each_metric_and_its_spans_are_no_alternatives():
    prediction, answers = ("red", "red", "blue"), (("red", "blue", "blue"), ("red", "red", "blue sky"))
    assert drop_exact_match(prediction, answers) == 1  # with the first, F1 2/3
    assert drop_f1(prediction, answers) == 0.89  # with the second, (1 + 1 + 2/3) / 3
    assert drop_f1("red", (("red", "blue"),)) == 0.5
    assert drop_f1("red", (("red",), ("blue",))) == 1


@pytest.mark.parametrize("metric", [drop_f1, drop_exact_match])
def test_a_gold_with_a_blank_first_span_matches_nothing(metric):
    assert metric(" ", one(" ")) == metric((" ", "red"), one(" ", "red")) == 0
    assert metric(("red", " "), one("red", " ")) == 1
    assert metric("red", ((" ",), ("red",))) == 1


@pytest.mark.parametrize(
    ("shared", "predicted", "gold", "expected"),
    [
        (1, 1, 15, 0.12),  # exactly 0.125, whose half cent goes to the even neighbour
        (3, 3, 13, 0.38),  # exactly 0.375
        (1, 24, 56, 0.02),  # 0.025, which NumPy rounds as 2.5 cents and Python as 0.025000000000000001
        (1, 5, 11, 0.13),  # 0.125 in fractions, 0.12500000000000003 by way of precision and recall
        (3, 5, 11, 0.37),  # 0.375 in fractions, 0.37499999999999994 by way of precision and recall
    ],
)
def test_drop_f1_rounds_half_cents_as_the_official_script(shared, predicted, gold, expected):
    words = [f"w{i}x" for i in range(predicted + gold - shared)]
    assert drop_f1(" ".join(words[:predicted]), one(" ".join(words[predicted - shared :]))) == expected


# Words with DROP's tokens of them; a number is its value.
DROP_WORDS = {
    **{"red": ("red",), "Blue,": ("blue",), "half-time": ("half", "time"), "The": (), "a-red": ("red",)},
    **{"3": (3.0,), "3.0": (3.0,), "1,000": (1000.0,), "1e3": (1000.0,), "7%": (7.0,), "7-yard": (7.0, "yard")},
}
drop_spans = st.lists(st.lists(st.sampled_from([*DROP_WORDS]), min_size=1, max_size=4), min_size=1, max_size=4)


def dice(predicted, gold):
    """Exact F1 of two sets of tokens under the number rule."""
    numbers = {token for token in gold if isinstance(token, float)}
    if numbers and numbers.isdisjoint(predicted):
        return Fraction(0)
    size = len(predicted) + len(gold)
    return Fraction(2 * len(predicted & gold), size) if size else Fraction(1)


def best_by_trying(predicted, gold):
    """Mean F1 of the best of all one-to-one alignments, with None for a missing partner."""
    length = max(len(predicted), len(gold))
    gold = gold + [None] * (length - len(gold))
    return max(
        sum(dice(p, g) for p, g in zip(order, gold, strict=True) if p is not None and g is not None) / Fraction(length)
        for order in itertools.permutations(predicted + [None] * (length - len(predicted)))
    )


@law
@given(drop_spans, drop_spans)
def test_drop_f1_is_the_best_of_all_alignments(predicted, gold):
    bags = [[{token for word in span for token in DROP_WORDS[word]} for span in spans] for spans in (predicted, gold)]
    prediction, answers = tuple(map(" ".join, predicted)), one(*map(" ".join, gold))
    score = drop_f1(prediction, answers)
    assert score == pytest.approx(float(best_by_trying(*bags)), abs=0.005 + 1e-9)
    assert score == pytest.approx(round(score, 2), abs=1e-12)
    assert drop_exact_match(prediction[::-1], answers) == drop_exact_match(prediction, answers)
    if len(prediction) == 1 and drop_exact_match(prediction, answers):
        assert score == 1
