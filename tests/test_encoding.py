"""Text to tokens: label words are single tokens after a prompt, and cutting keeps what matters."""

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from zo_runner.assets import ASSETS, asset_path, grammar
from zo_runner.encoding import Encoded, Encoder, collate, split_by_length
from zo_runner.errors import UserError
from zo_runner.tasks.base import Example

REVIEW = Example("The soup was bland. It was", 0)


@functools.cache
def pocket(name):
    return AutoTokenizer.from_pretrained(asset_path(name))


def characters(*merges, bos=False):
    """A tokenizer of single characters, the given merges of two pieces, and nothing else; spaces are characters."""
    pieces = dict.fromkeys(["<unk>", "<s>", *"abcdx \n:", *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, list(merges), unk_token="<unk>"))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>" if bos else None)


def options(tokenizer, prompt, words):
    return Encoder(tokenizer, words, 64).options(Example(prompt, 0))


# Options


@pytest.mark.parametrize("task", grammar.TASKS)
@pytest.mark.parametrize("name", ASSETS)
def test_the_options_of_a_pocket_task_are_its_words_after_a_space(name, task):
    tokenizer, words = pocket(name), list(grammar.LABEL_WORDS[task])
    found = options(tokenizer, REVIEW.prompt, words)
    assert [tokenizer.decode([token]) for token in found] == [f" {word}" for word in words]
    whole = tokenizer(f"{REVIEW.prompt} {words[0]}")["input_ids"]
    assert whole == [*tokenizer(REVIEW.prompt)["input_ids"], found[0]]


@pytest.mark.parametrize("name", ASSETS)
def test_a_space_at_the_end_of_a_prompt_changes_nothing(name):
    tokenizer = pocket(name)
    encoder = Encoder(tokenizer, ["terrible", "great"], 64)
    spaced = Example(REVIEW.prompt + "  ", 0)
    assert encoder.options(spaced) == encoder.options(REVIEW)
    assert encoder.prompts([spaced]) == encoder.prompts([REVIEW])


@pytest.mark.parametrize("prompt", ["a:\n", "a:\n\n"])
def test_after_a_line_break_the_word_follows_directly(prompt):
    tokenizer = characters((" ", "c"), (" ", "d"))
    assert options(tokenizer, prompt, ["c", "d"]) == tokenizer.convert_tokens_to_ids(["c", "d"])
    assert options(tokenizer, prompt.strip(), ["c", "d"]) == tokenizer.convert_tokens_to_ids([" c", " d"])
    assert Encoder(tokenizer, ["c", "d"], 64).prompts([Example(prompt, 0)])[0].ids == tuple(
        tokenizer(prompt)["input_ids"]
    )


@pytest.mark.parametrize(
    ("merges", "why"),
    [
        ([(" ", "c"), (" ", "d"), ("b", " c")], "the word is swallowed by the prompt's last token"),
        ([(" ", "d"), ("b", " "), ("b ", "c"), ("a", "b")], "the prompt's own tokens change"),
        ([(" ", "d")], "the word and its space are two tokens"),
    ],
)
def test_a_word_that_merges_with_the_prompt_or_splits_is_refused(merges, why):
    with pytest.raises(UserError, match=r"^Invalid task\.label_words: 'c'\. Must be words that are one token each"):
        options(characters(*merges), "ab", ["c", "d"])
    assert len(options(characters((" ", "c"), (" ", "d")), "ab", ["c", "d"])) == 2, why


def test_a_word_outside_the_vocabulary_is_refused():
    tokenizer = characters((" ", "c"))
    assert tokenizer("ab\nz")["input_ids"][-1] == tokenizer.unk_token_id
    with pytest.raises(UserError, match=r"^Invalid task\.label_words: 'z'\."):
        options(tokenizer, "ab\n", ["c", "z"])


def test_words_of_one_token_in_common_are_refused_together():
    tokenizer = characters((" ", "c"))
    with pytest.raises(UserError, match=r"^Invalid task\.label_words: 'c', 'c'\."):
        options(tokenizer, "ab", ["c", "c"])


@pytest.mark.parametrize("name", ASSETS)
def test_a_refusal_offers_words_that_this_tokenizer_has(name):
    with pytest.raises(UserError) as refusal:
        options(pocket(name), REVIEW.prompt, ["unbelievable", "great"])
    assert "'unbelievable'" in str(refusal.value)
    assert "'great'" not in str(refusal.value)
    offered = str(refusal.value).split("Such as: ")[1].rstrip(".").split("; ")
    assert "terrible great" in offered
    for pair in offered:
        assert len(options(pocket(name), REVIEW.prompt, pair.split())) == 2


def test_a_refusal_offers_nothing_where_nothing_fits():
    with pytest.raises(UserError) as refusal:
        options(characters(), "ab", ["c", "d"])
    assert "Such as" not in str(refusal.value)


# Prompts


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 6])
def test_cutting_keeps_the_end_and_a_bos(max_length):
    (whole,) = Encoder(characters(bos=True), ["c", "d"], 64).prompts([Example("abcdx", 1)])
    (cut,) = Encoder(characters(bos=True), ["c", "d"], max_length).prompts([Example("abcdx", 1)])
    assert len(whole.ids) == 6
    assert len(cut.ids) == max_length
    assert cut.label == 1
    if max_length == 1:
        assert cut.ids == whole.ids[-1:]
    else:
        assert cut.ids == (whole.ids[0], *whole.ids[-(max_length - 1) :])


@pytest.mark.parametrize("max_length", [1, 3, 5])
def test_cutting_without_a_bos_keeps_the_end(max_length):
    (whole,) = Encoder(characters(), ["c", "d"], 64).prompts([Example("abcdx", 0)])
    (cut,) = Encoder(characters(), ["c", "d"], max_length).prompts([Example("abcdx", 0)])
    assert cut.ids == whole.ids[-max_length:]


def test_a_cut_prompt_still_ends_where_the_label_word_follows():
    for name in ASSETS:
        tokenizer = pocket(name)
        (cut,) = Encoder(tokenizer, ["terrible", "great"], 4).prompts([REVIEW])
        assert tokenizer.decode(cut.ids[-2:]) == " It was"
        begins = tokenizer(REVIEW.prompt)["input_ids"][0] == tokenizer.bos_token_id
        assert (cut.ids[0] == tokenizer.bos_token_id) == begins


# Batches


def test_a_batch_is_padded_on_the_right_and_knows_the_last_tokens():
    batch = collate([Encoded((5, 6, 7), 1), Encoded((8,), 0)], pad_id=9, device="cpu", extra_padding=1)
    assert batch.ids_BT.tolist() == [[5, 6, 7, 9], [8, 9, 9, 9]]
    assert batch.last_B1.tolist() == [[2], [0]]
    assert batch.labels_B.tolist() == [1, 0]
    assert (len(batch), batch.tokens) == (2, 4)


def rows(lengths):
    return [Encoded((i,) * length, 0) for i, length in enumerate(lengths)]


def cost(groups, overhead):
    return sum(len(group) * max(len(e.ids) for e in group) + overhead for group in groups)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), overhead=st.integers(0, 30))
def test_splitting_by_length_keeps_every_row_and_computes_as_few_tokens_as_any_split(lengths, overhead):
    examples = rows(lengths)
    groups = split_by_length(examples, overhead)
    assert sorted(itertools.chain(*groups), key=examples.index) == examples
    assert all(group == sorted(group, key=examples.index) for group in groups)
    ordered = sorted(examples, key=lambda e: len(e.ids))
    cuts = (c for n in range(len(ordered)) for c in itertools.combinations(range(1, len(ordered)), n))
    best = min(cost([ordered[i:j] for i, j in itertools.pairwise((0, *c, len(ordered)))], overhead) for c in cuts)
    assert cost(groups, overhead) == best


def test_a_dear_forward_is_never_repeated_and_a_free_one_never_pads():
    examples = rows([3, 9, 1, 9])
    assert split_by_length(examples, 1000) == [examples]
    assert [len(group) for group in split_by_length(examples, 0)] == [1, 1, 2]
