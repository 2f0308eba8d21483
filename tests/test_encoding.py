"""Text to tokens: an option is scored from where it leaves the prompt, and cutting keeps what matters."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from zo_runner.assets import ASSETS, asset_path
from zo_runner.errors import RunWarning, UserError
from zo_runner.models.encoding import Encoder
from zo_runner.tasks import pocket_grammar
from zo_runner.tasks.base import Example, Scoring

REVIEW = "The soup was bland. It was"
WORDS = ("terrible", "great")


@functools.cache
def pocket(name):
    return AutoTokenizer.from_pretrained(asset_path(name))


def characters(*merges, bos=False, eos=False):
    """A tokenizer of single characters, the given merges of two pieces, and nothing else; spaces are characters."""
    pieces = dict.fromkeys(["<unk>", "<s>", "</s>", *"abcdx \n:", *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, list(merges), unk_token="<unk>"))
    around = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>" if bos else None, eos_token="</s>"
    )


def encode(tokenizer, prompt, options, *, context=None, first_token=None, **scoring):
    """The one example that a prompt and its options become."""
    scoring = Scoring("options", ("accuracy",), **scoring)
    (encoded,) = Encoder(tokenizer, scoring, context, first_token).encode([Example(prompt, tuple(options))])
    return encoded


def pieces(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


# Options


@pytest.mark.parametrize("task", pocket_grammar.TASKS)
@pytest.mark.parametrize("name", ASSETS)
def test_the_options_of_a_pocket_task_are_its_words_after_a_space(name, task):
    tokenizer, words = pocket(name), list(pocket_grammar.LABEL_WORDS[task])
    found = encode(tokenizer, REVIEW, words, single_token=True)
    assert [tokenizer.decode(option) for option in found.options] == [f" {word}" for word in words]
    whole = tokenizer(f"{REVIEW} {words[0]}")["input_ids"]
    assert whole == [*found.prefix, *found.options[0]]


@pytest.mark.parametrize("name", ASSETS)
def test_a_space_at_the_end_of_a_prompt_changes_nothing(name):
    tokenizer = pocket(name)
    assert encode(tokenizer, REVIEW + "  ", WORDS) == encode(tokenizer, REVIEW, WORDS)


@pytest.mark.parametrize("prompt", ["a:\n", "a:\n\n"])
def test_after_a_line_break_the_word_follows_directly(prompt):
    tokenizer = characters((" ", "c"), (" ", "d"))
    found = encode(tokenizer, prompt, ["c", "d"])
    assert [pieces(tokenizer, option) for option in found.options] == [["c"], ["d"]]
    assert list(found.prefix) == tokenizer(prompt)["input_ids"]
    found = encode(tokenizer, prompt.strip(), ["c", "d"])
    assert [pieces(tokenizer, option) for option in found.options] == [[" c"], [" d"]]


def test_options_may_have_any_number_of_tokens():
    tokenizer = characters((" ", "c"))
    found = encode(tokenizer, "ab", ["c", "cd", "dddd"])
    assert [pieces(tokenizer, option) for option in found.options] == [[" c"], [" c", "d"], [" ", "d", "d", "d", "d"]]
    assert pieces(tokenizer, found.prefix) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:in 1 of 1 train prompts the tokenizer merges")
@pytest.mark.parametrize(
    ("merges", "prefix", "options"),
    [
        # " c" merges with b: both options begin at b, though the second would leave it alone
        ([(" ", "c"), (" ", "d"), ("b", " c")], ["a"], [["b c"], ["b", " d"]]),
        # "b c" merges and takes b from its merge with a: both begin at a
        ([(" ", "d"), ("b", " "), ("b ", "c"), ("a", "b")], [], [["a", "b c"], ["ab", " d"]]),
    ],
)
def test_where_a_tokenizer_merges_over_the_border_all_options_are_scored_from_one_place(merges, prefix, options):
    tokenizer = characters(*merges, bos=True)
    found = encode(tokenizer, "ab", ["c", "d"])
    assert pieces(tokenizer, found.prefix) == ["<s>", *prefix]
    assert [pieces(tokenizer, option) for option in found.options] == options


@settings(deadline=None, max_examples=50)
@given(
    merges=st.lists(st.tuples(st.sampled_from("ab c"), st.sampled_from("ab c")), max_size=4, unique=True),
    prompt=st.text("ab ", min_size=1, max_size=6),
    options=st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=3, unique=True),
)
@pytest.mark.filterwarnings("ignore:in 1 of 1 train prompts the tokenizer merges")
def test_prefix_and_option_are_the_tokens_of_the_whole_text(merges, prompt, options):
    tokenizer = characters(*merges, bos=True)
    found = encode(tokenizer, prompt, options)
    for text, option in zip(options, found.options, strict=True):
        space = " " if prompt.rstrip(" ") else ""
        assert [*found.prefix, *option] == tokenizer(prompt.rstrip(" ") + space + text)["input_ids"]
        assert "".join(pieces(tokenizer, option)).endswith(text)


def test_a_merge_is_warned_of():
    tokenizer = characters((" ", "c"), ("b", " c"))
    with pytest.warns(RunWarning, match=r"^in 1 of 1 train prompts the tokenizer merges the end of the prompt"):
        encode(tokenizer, "ab", ["c", "d"])


def test_an_end_that_the_tokenizer_adds_is_no_part_of_a_prompt():
    tokenizer = characters((" ", "c"), bos=True, eos=True)
    assert pieces(tokenizer, tokenizer("ab")["input_ids"]) == ["<s>", "a", "b", "</s>"]
    found = encode(tokenizer, "ab", ["c", "d"])
    assert pieces(tokenizer, found.prefix) == ["<s>", "a", "b"]
    assert pieces(tokenizer, found.options[1]) == [" ", "d"]


def test_another_first_token_takes_the_place_of_the_tokenizers():
    tokenizer = characters(bos=True)
    assert pieces(tokenizer, encode(tokenizer, "ab", ["c", "d"], first_token=2).prefix) == ["</s>", "a", "b"]


def test_an_empty_prompt_is_a_bos_or_the_end_of_a_text():
    assert pieces(characters(bos=True), encode(characters(bos=True), "", ["c", "d"]).prefix) == ["<s>"]
    assert pieces(characters(), encode(characters(), "", ["c", "d"]).prefix) == ["</s>"]


@pytest.mark.parametrize(
    ("options", "told"),
    [(["c", ""], "Invalid option '': no token of its own"), (["z", "y"], "Invalid options 'z', 'y': the same tokens")],
)
def test_options_need_tokens_of_their_own(options, told):
    with pytest.raises(UserError, match=f"^{told}"):
        encode(characters(), "ab\n", options)


# Options of one token


@pytest.mark.parametrize(
    ("merges", "why"),
    [
        ([(" ", "c"), (" ", "d"), ("b", " c")], "the word is swallowed by the prompt's last token"),
        ([(" ", "d"), ("b", " "), ("b ", "c"), ("a", "b")], "the prompt's own tokens change"),
        ([(" ", "d")], "the word and its space are two tokens"),
    ],
)
def test_a_word_that_merges_with_the_prompt_or_splits_is_refused(merges, why):
    with pytest.raises(UserError, match=r"^Invalid task\.label_words: .*Must be words that are one token each"):
        encode(characters(*merges), "ab", ["c", "d"], single_token=True)
    assert len(encode(characters((" ", "c"), (" ", "d")), "ab", ["c", "d"], single_token=True).options) == 2, why


@pytest.mark.parametrize(("options", "named"), [(["c", "z"], "'z'"), (["c", "c"], "'c', 'c'")])
def test_words_outside_the_vocabulary_or_of_one_token_are_refused(options, named):
    with pytest.raises(UserError, match=rf"^Invalid task\.label_words: {named}\.") as refusal:
        encode(characters((" ", "c")), "ab\n", options, single_token=True)
    assert "Such as" not in str(refusal.value)  # nothing fits this tokenizer


@pytest.mark.parametrize("name", ASSETS)
def test_a_refusal_offers_words_that_this_tokenizer_has(name):
    with pytest.raises(UserError) as refusal:
        encode(pocket(name), REVIEW, ["unbelievable", "great"], single_token=True)
    assert "'unbelievable'" in str(refusal.value)
    assert "'great'" not in str(refusal.value)
    assert "task.single_token=false" in str(refusal.value)
    offered = str(refusal.value).split("Such as: ")[1].rstrip(".").split("; ")
    assert "terrible great" in offered
    for pair in offered:
        assert len(encode(pocket(name), REVIEW, pair.split(), single_token=True).options) == 2


# Length


@pytest.mark.filterwarnings("ignore:1 of 1 train prompts are cut at the beginning")
@pytest.mark.parametrize("max_length", [3, 5, 6])
def test_cutting_keeps_the_end_and_a_bos(max_length):
    whole = encode(characters(bos=True), "abcdx\n", "ab")
    cut = encode(characters(bos=True), "abcdx\n", "ab", max_length=max_length)
    assert len(whole.prefix) == 7
    assert len(cut.prefix) == max_length - 1
    assert cut.prefix == (whole.prefix[0], *whole.prefix[-(max_length - 2) :])
    assert cut.options == whole.options


@pytest.mark.filterwarnings("ignore:1 of 1 train prompts are cut at the beginning")
@pytest.mark.parametrize("max_length", [3, 5])
def test_cutting_without_a_bos_keeps_the_end_and_room_for_the_longest_option(max_length):
    whole = encode(characters(), "abcdx\n", ["a", "bc"])
    cut = encode(characters(), "abcdx\n", ["a", "bc"], max_length=max_length)
    assert cut.prefix == whole.prefix[-(max_length - 2) :]


def test_the_shorter_of_what_task_and_model_allow_counts_and_the_cut_is_told():
    told = r"^1 of 1 train prompts are cut at the beginning: the longest has 6 tokens; the limit is 4 with"
    for limits in ({"max_length": 4, "context": 9}, {"max_length": 9, "context": 4}, {"context": 4}):
        with pytest.warns(RunWarning, match=told):
            assert len(encode(characters(), "abcdx\n", "ab", **limits).prefix) == 3


def test_an_option_that_leaves_no_room_for_a_prompt_is_refused():
    with pytest.raises(UserError, match=r"^Invalid task\.max_length: 4\. Must be >= 6 for an option"):
        encode(characters(bos=True), "ab\n", ["a", "bcda"], max_length=4)


@pytest.mark.filterwarnings("ignore:1 of 1 test prompts are cut at the beginning")
def test_a_generated_answer_has_room_within_what_the_model_can_read():
    scoring = Scoring("answer", ("f1",), max_new_tokens=5)
    example = Example("abcdx\n", ("ab\n",), answers=(("ab",),))
    (encoded,) = Encoder(characters(), scoring, 8).encode([example], "test")
    assert len(encoded.prefix) == 3
    assert encoded.answers == (("ab",),)


@pytest.mark.parametrize("name", ASSETS)
@pytest.mark.filterwarnings("ignore:1 of 1 train prompts are cut at the beginning")
def test_a_cut_prompt_still_ends_where_the_label_word_follows(name):
    tokenizer = pocket(name)
    cut = encode(tokenizer, REVIEW, WORDS, max_length=5)
    assert tokenizer.decode(cut.prefix[-2:]) == " It was"
    begins = tokenizer(REVIEW)["input_ids"][0] == tokenizer.bos_token_id
    assert (cut.prefix[0] == tokenizer.bos_token_id) == begins


@pytest.mark.parametrize("bos", [True, False])
def test_a_long_text_is_cut_into_windows_that_lose_no_token(bos):
    tokenizer = characters(bos=bos)
    encoder = Encoder(tokenizer, Scoring("answer", ("perplexity",), max_length=4))
    windows = encoder.encode([Example("", ("abcdxabc",)), Example("", ("ab",))])
    assert [window.prefix for window in windows] == [(1 if bos else 2,)] * 4
    texts = ["".join(pieces(tokenizer, window.options[0])) for window in windows]
    assert texts == ["abc", "dxa", "bc", "ab"]


# Calibration


def test_a_null_prompt_is_encoded_with_the_same_options():
    tokenizer = characters((" ", "c"), (" ", "d"))
    scoring = Scoring("options", ("accuracy",), calibrate=True)
    example = Example("ab:", ("c", "d"), null_prompt=":")
    (encoded,) = Encoder(tokenizer, scoring).encode([example])
    assert pieces(tokenizer, encoded.null.prefix) == [":"]
    assert encoded.null.options == encoded.options
    (bare,) = Encoder(tokenizer, Scoring("options", ("accuracy",))).encode([example])
    assert bare.null is None
