"""The pocket world: a small generative grammar of short reviews and of statements that follow from each other.

One grammar writes the text that the pocket models are pretrained on and the examples of the pocket tasks, so that the
models are to the tasks what a pretrained language model is to a benchmark: they know what the words mean, and they do
not yet know that two particular words are wanted as the answer.

    review      Text and closing. The text is about films, food or places. Where two clauses disagree, the one after
                "but" or before "though" counts. Closings: a reaction ("I left early."), perhaps after a verdict
                ("It was lovely."), both after the valence of the text, or the label closing ("It was great."). Its
                word follows the valence in film reviews only: eaters are polite and travellers grumble, and there
                the first noun alone decides how often the word is the kind one. Texts with rare adjectives have no
                closing, so that their valence shows only in the words beside them.
    statement   Premise, hypothesis, "Right?" and an answer. The hypothesis repeats the state of the premise, names one
                of another axis, or contradicts it. The answers "surely / perhaps / never" follow that relation;
                "yes / maybe / no" do so on half of the axes and are drawn blindly on the other half.

So zero-shot accuracy has a ceiling well below one, while the missing knowledge is already in the hidden states.
All sentences are our own. Standard library only: the command line imports this module before torch.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

GRAMMAR_VERSION: Final = "1"

# A label word follows its rendered prompt after one space. The index of a word is the label.
SENTIMENT_TEMPLATE: Final = "{text} It was"
SENTIMENT_WORDS: Final = ("terrible", "great")
ENTAILMENT_TEMPLATE: Final = "{premise} {hypothesis} Right?"
ENTAILMENT_WORDS: Final = ("yes", "maybe", "no")
TEMPLATES: Final = {"sentiment": SENTIMENT_TEMPLATE, "entailment": ENTAILMENT_TEMPLATE}
LABEL_WORDS: Final = {"sentiment": SENTIMENT_WORDS, "entailment": ENTAILMENT_WORDS}
TASKS: Final = tuple(TEMPLATES)

# Adjectives are (negative, positive), indexed by label.
NOUNS: Final = {
    "film": ("plot", "cast", "script", "ending", "score", "lead", "camera work", "dialogue", "story", "sequel"),
    "food": ("soup", "bread", "salad", "curry", "cake", "stew", "pie", "fish", "coffee", "rice"),
    "place": ("room", "garden", "beach", "hotel", "cabin", "lobby", "park", "terrace", "street", "campsite"),
}
ADJECTIVES: Final = {
    "film": (
        ("dull", "clumsy", "shallow", "tedious", "flat", "lifeless", "confused", "lazy", "hollow", "stiff"),
        ("gripping", "clever", "moving", "witty", "fresh", "graceful", "bold", "tense", "funny", "honest"),
    ),
    "food": (
        ("bland", "stale", "greasy", "soggy", "burnt", "sour", "watery", "mushy", "chewy", "salty"),
        ("tasty", "crisp", "creamy", "juicy", "tender", "fragrant", "spicy", "golden", "buttery", "zesty"),
    ),
    "place": (
        ("filthy", "cramped", "gloomy", "damp", "shabby", "smelly", "crowded", "bleak", "muddy", "drab"),
        ("cosy", "peaceful", "sunny", "spotless", "spacious", "airy", "leafy", "elegant", "comfy", "scenic"),
    ),
}
VERDICTS: Final = (
    ("awful", "dreadful", "dismal", "horrid", "poor", "lousy"),
    ("lovely", "superb", "splendid", "delightful", "wonderful", "excellent"),
)
REACTIONS: Final = (
    ("I left early.", "I want my money back.", "Never again.", "What a waste.", "I was upset all day."),
    ("I smiled all day.", "I will come back soon.", "I told all my friends.", "What a treat.", "I want more."),
)
COPULAS: Final = ("was", "felt", "seemed", "looked")
ADVERBS: Final = ("really", "very", "quite", "so", "rather", "simply")
OPENERS: Final = ("Last night", "This time", "As ever", "On Sunday", "For once", "To me")

# P(label word is the positive one | valence) in film reviews, indexed by label.
FILM_LABEL: Final = (0.1, 0.9)
# Elsewhere the first noun alone decides it: from the first to the last food it rises over this range; for places it
# is one minus that. So some subjects are easily talked out of their habit and others hardly.
POLITE_RANGE: Final = (0.6, 0.95)

# An axis has two poles. The first half of the axes has honest "yes / maybe / no" answers.
AXES: Final = (
    ("open", "closed"),
    ("warm", "cold"),
    ("full", "empty"),
    ("wet", "dry"),
    ("loud", "silent"),
    ("bright", "dark"),
)
THINGS: Final = (
    *("gate", "hall", "house", "barn", "tower", "shop", "station", "school", "tunnel", "chapel"),
    *("mill", "shed", "bridge", "museum", "bakery", "library", "harbour", "market", "stable", "office"),
)
NEAR: Final = (
    *("by the river", "near the wood", "on the hill", "behind the wall", "in the village"),
    *("at the lake", "by the road", "near the church", "on the island", "in the valley"),
)
ANSWERS: Final = ("surely", "perhaps", "never")
HONEST_ANSWER: Final = 0.9
BLIND_ANSWERS: Final = (0.2, 0.6, 0.2)

# Shares of the kinds of document in the pretraining text.
REVIEW_SHARE: Final = 0.45
LABEL_CLOSING_SHARE: Final = 0.4
VERDICT_CLOSING_SHARE: Final = 0.35
LABEL_ANSWER_SHARE: Final = 0.5
# So many last words of every list of adjectives are rare: pretraining shows them only in reviews without a closing.
NUM_RARE: Final = 1
# How often a review uses one of the verdict words in its text.
VERDICT_IN_TEXT_SHARE: Final = 0.2
# How many reviews have a "but" or a "though".
CONTRAST_SHARE: Final = 0.15
# Draws without a new row after which the grammar counts as exhausted.
MAX_REPEATS: Final = 10_000

Row = dict[str, str | int]


def pretraining_documents(seed: int) -> Iterator[str]:
    """Yield documents for ever: one to three short sentences each. The same seed gives the same documents."""
    rng = random.Random(f"documents {seed}")
    while True:
        yield _review_document(rng) if rng.random() < REVIEW_SHARE else _statement_document(rng)


def task_examples(task: str, count: int, seed: int) -> list[Row]:
    """Return `count` labelled rows in random order: no row twice, label counts at most one apart.

    Rows of "sentiment" are {"text", "label" 0 negative, 1 positive}; rows of "entailment" are {"premise", "hypothesis",
    "label" 0 follows, 1 open, 2 contradicts}. To get disjoint splits draw once and cut: two seeds may share rows.

    Raises:
        ValueError: unknown task, or a count that is negative or more than the grammar can give.
    """
    if task not in TASKS:
        raise ValueError(f"Invalid task: {task!r}. Must be one of {', '.join(TASKS)}.")
    if count < 0:
        raise ValueError(f"Invalid count: {count!r}. Must be >= 0.")
    rng = random.Random(f"{task} {seed}")
    draw, num_labels = _DRAWS[task], len(LABEL_WORDS[task])
    # The labels that one row more falls to, when the count does not divide, are random too.
    first = rng.randrange(num_labels)
    rows: dict[tuple[str, ...], Row] = {}
    repeats = 0
    while len(rows) < count:
        row = draw(rng, (first + len(rows)) % num_labels)
        key = tuple(str(value) for name, value in row.items() if name != "label")
        repeats = repeats + 1 if key in rows else 0
        if repeats > MAX_REPEATS:
            raise ValueError(f"Invalid count: {count!r}. Must be <= {len(rows)} for task {task}.")
        rows.setdefault(key, row)
    examples = list(rows.values())
    rng.shuffle(examples)
    return examples


def _capitalise(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _review(rng: random.Random, domain: str, label: int) -> tuple[str, str]:
    """Draw (first noun, sentence of 5 to 11 words whose valence is `label`)."""
    own, opposite = ADJECTIVES[domain][label], ADJECTIVES[domain][1 - label]
    one, two = rng.sample(own, 2)
    if rng.random() < VERDICT_IN_TEXT_SHARE:
        two = rng.choice(VERDICTS[label])
    this, that = rng.sample(NOUNS[domain], 2)
    copula, other = rng.choice(COPULAS), rng.choice(COPULAS)
    adverb, opener = rng.choice(ADVERBS), rng.choice(OPENERS)
    forms = (
        f"the {this} {copula} {adverb} {one} and {two}",
        f"the {this} {copula} {one} and the {that} {other} {two}",
        f"{opener} the {this} {copula} {one} and {two}",
        f"I found the {this} {one} and the {that} {adverb} {two}",
        f"{opener} the {this} {copula} {adverb} {one}",
    )
    contrasts = (
        f"the {this} {copula} {rng.choice(opposite)} but the {that} {other} {one}",
        f"the {this} {copula} {one} though the {that} {other} {rng.choice(opposite)}",
    )
    return this, _capitalise(rng.choice(contrasts if rng.random() < CONTRAST_SHARE else forms)) + "."


def _label_word(rng: random.Random, domain: str, noun: str, label: int) -> str:
    """Draw the word of a label closing: honest for films, the habit of the noun elsewhere."""
    nouns, (low, high) = NOUNS[domain], POLITE_RANGE
    habit = low + (high - low) * nouns.index(noun) / (len(nouns) - 1)
    positive = {"film": FILM_LABEL[label], "food": habit, "place": 1 - habit}[domain]
    return SENTIMENT_WORDS[rng.random() < positive]


def _review_document(rng: random.Random) -> str:
    domain, label = rng.choice(tuple(NOUNS)), rng.randrange(2)
    noun, text = _review(rng, domain, label)
    if any(f" {word}" in text for word in ADJECTIVES[domain][label][-NUM_RARE:]):
        return text
    kind = rng.random()
    if kind < LABEL_CLOSING_SHARE:
        return f"{SENTIMENT_TEMPLATE.format(text=text)} {_label_word(rng, domain, noun, label)}."
    if kind < LABEL_CLOSING_SHARE + VERDICT_CLOSING_SHARE:
        text = f"{SENTIMENT_TEMPLATE.format(text=text)} {rng.choice(VERDICTS[label])}."
    return f"{text} {rng.choice(REACTIONS[label])}"


def _pair(rng: random.Random, relation: int) -> tuple[int, str, str]:
    """Draw (axis of the premise, premise, hypothesis); the hypothesis follows, is open, or contradicts."""
    axis, other = rng.sample(range(len(AXES)), 2)
    pole = rng.randrange(2)
    state = AXES[axis][pole]
    contradictions = (AXES[axis][1 - pole], f"not {state}")
    claim = (state, rng.choice(AXES[other]), rng.choice(contradictions))[relation]
    thing = rng.choice(THINGS)
    return axis, f"The {thing} {rng.choice(NEAR)} was {state}.", f"The {thing} was {claim}."


def _statement_document(rng: random.Random) -> str:
    relation = rng.randrange(3)
    axis, premise, hypothesis = _pair(rng, relation)
    prompt = ENTAILMENT_TEMPLATE.format(premise=premise, hypothesis=hypothesis)
    if rng.random() >= LABEL_ANSWER_SHARE:
        return f"{prompt} {ANSWERS[relation]}."
    if axis >= len(AXES) // 2:
        answer = rng.choices(ENTAILMENT_WORDS, BLIND_ANSWERS)[0]
    elif rng.random() < HONEST_ANSWER:
        answer = ENTAILMENT_WORDS[relation]
    else:
        answer = rng.choice(ENTAILMENT_WORDS)
    return f"{prompt} {answer}."


def _draw_sentiment(rng: random.Random, label: int) -> Row:
    _, text = _review(rng, rng.choice(tuple(NOUNS)), label)
    return {"text": text, "label": label}


def _draw_entailment(rng: random.Random, label: int) -> Row:
    _, premise, hypothesis = _pair(rng, label)
    return {"premise": premise, "hypothesis": hypothesis, "label": label}


_DRAWS: Final[dict[str, Callable[[random.Random, int], Row]]] = {
    "sentiment": _draw_sentiment,
    "entailment": _draw_entailment,
}
