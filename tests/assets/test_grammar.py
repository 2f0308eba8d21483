"""Laws of the grammar: what a task may rely on, whatever the seed."""

import itertools
import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from zo_runner.assets import ASSETS, asset_path
from zo_runner.tasks import pocket_grammar


def _texts(row: pocket_grammar.Row) -> tuple[object, ...]:
    return tuple(value for key, value in row.items() if key != "label")


@given(task=st.sampled_from(pocket_grammar.TASKS), count=st.integers(0, 60), seed=st.integers(-(2**40), 2**40))
def test_examples_are_deterministic_balanced_and_without_duplicates(task: str, count: int, seed: int) -> None:
    rows = pocket_grammar.task_examples(task, count, seed)
    assert rows == pocket_grammar.task_examples(task, count, seed)
    assert len(rows) == count == len({_texts(row) for row in rows})
    num_rows = Counter(row["label"] for row in rows)
    shares = [num_rows[label] for label in range(len(pocket_grammar.LABEL_WORDS[task]))]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("task", pocket_grammar.TASKS)
def test_the_grammar_gives_splits_of_benchmark_size(task: str) -> None:
    rows = pocket_grammar.task_examples(task, 3000, seed=0)
    assert tuple(rows[0]) == {"sentiment": ("text", "label"), "entailment": ("premise", "hypothesis", "label")}[task]
    assert len({_texts(row) for row in rows}) == 3000
    assert rows != pocket_grammar.task_examples(task, 3000, seed=1)
    # Cut anywhere, a split keeps roughly the balance of the whole.
    head = Counter(row["label"] for row in rows[:1000])
    assert max(head.values()) - min(head.values()) < 120


def test_the_label_words_occur_only_as_answers() -> None:
    for task in pocket_grammar.TASKS:
        for row in pocket_grammar.task_examples(task, 1000, seed=4):
            words = " ".join(str(text) for text in _texts(row)).lower().replace(".", "").split()
            assert not set(words) & set(pocket_grammar.LABEL_WORDS[task])


def test_reviews_of_one_label_never_contain_only_words_of_the_other() -> None:
    for row in pocket_grammar.task_examples("sentiment", 1000, seed=5):
        text, label = str(row["text"]), int(row["label"])
        words = {word for lists in pocket_grammar.ADJECTIVES.values() for word in lists[label]}
        assert any(word in text for word in words)


@pytest.mark.parametrize("name", ASSETS)
@pytest.mark.parametrize("task", pocket_grammar.TASKS)
def test_every_label_word_is_one_token_after_any_prompt(
    name: str, task: str, load_tokenizer: Callable[[str], PreTrainedTokenizerBase]
) -> None:
    tokenizer = load_tokenizer(name)
    for row in pocket_grammar.task_examples(task, 300, seed=6):
        prompt = pocket_grammar.TEMPLATES[task].format(**row)
        ids = tokenizer(prompt)["input_ids"]
        for word in pocket_grammar.LABEL_WORDS[task]:
            (word_id,) = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            assert tokenizer(f"{prompt} {word}")["input_ids"] == [*ids, word_id]


@pytest.mark.parametrize("name", ASSETS)
def test_every_word_of_the_grammar_is_one_token_and_other_text_survives(
    name: str, load_tokenizer: Callable[[str], PreTrainedTokenizerBase]
) -> None:
    tokenizer = load_tokenizer(name)
    special = int(name == "pocket_opt")
    for document in itertools.islice(pocket_grammar.pretraining_documents(seed=7), 300):
        num_pieces = len(document.replace(".", " .").replace("?", " ?").split())
        assert len(tokenizer(document)["input_ids"]) == num_pieces + special
    text = "Naïve façade: 3 × 7 = 21, no?"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(
    ("task", "count", "message"),
    [
        ("sentimant", 1, "Invalid task: 'sentimant'. Must be one of sentiment, entailment."),
        ("sentiment", -1, "Invalid count: -1. Must be >= 0."),
        ("entailment", 10**6, "Invalid count: 1000000. Must be <= "),
    ],
)
def test_invalid_arguments(task: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pocket_grammar.task_examples(task, count, seed=0)


def test_asset_path() -> None:
    assert [asset_path(name).name for name in ASSETS] == list(ASSETS)
    with pytest.raises(ValueError, match=r"Invalid asset: 'x'\. Must be one of pocket_opt, pocket_qwen3\."):
        asset_path("x")
