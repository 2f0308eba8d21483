"""Losses and scores are those of the literature's plain rule, at the price of shared and compact forwards."""

import dataclasses
import math
import random
import statistics
from dataclasses import replace
from unittest import mock

import pytest
import torch

from tests import plain_scoring as plain
from zo_runner.assets import ASSETS
from zo_runner.models import loss as loss_module
from zo_runner.models.base_model import load_base
from zo_runner.models.encoding import Encoder
from zo_runner.models.evaluator import Evaluator
from zo_runner.seeds import fold_in
from zo_runner.tasks.base import Example, Scoring
from zo_runner.tasks.pocket_grammar import pretraining_documents
from zo_runner.training.noise import Noise

WORDS = ("terrible", "great")
PHRASES = ("It was.", "great", "The soup was bland and the room damp.", "terrible", "stale bread")
LONGEST_PROMPT = 60


def prompts_of_mixed_length(tokenizer, count=40):
    """Running text of the pocket world, cut to 1 to 60 tokens, each length about as often."""
    documents, texts = pretraining_documents(3), []
    for i in range(count):
        length = 1 + i * (LONGEST_PROMPT - 1) // (count - 1)
        words = " ".join(next(documents) for _ in range(6)).split()
        while len(tokenizer(" ".join(words))["input_ids"]) > length and len(words) > 1:
            words.pop()
        texts.append(" ".join(words) + ("\n" if i % 3 == 0 else ""))
    random.Random(fold_in(0, "prompts")).shuffle(texts)
    return texts


@dataclasses.dataclass
class Setting:
    """One pocket model and prompts for it; `evaluator` and `examples` are those of two label words."""

    base: object
    texts: list

    def __post_init__(self):
        self.evaluator, self.examples = self.scored([Example(t, WORDS, (i % 2,)) for i, t in enumerate(self.texts)])

    def scored(self, examples, loss="options", metrics=("accuracy",), **scoring):
        """An evaluator, and examples as it takes them."""
        scoring = Scoring(loss, metrics, **scoring)
        base = self.base
        encoder = Encoder(base.tokenizer, scoring, base.context)
        evaluator = Evaluator(base.model, scoring, pad_id=base.pad_id, context=base.context, tokenizer=base.tokenizer)
        return evaluator, encoder.encode(examples, "test")


@pytest.fixture(scope="module", params=ASSETS)
def setting(request):
    base = load_base(request.param, embedded=True, device=torch.device("cpu"), dtype="float32")
    made = Setting(base, prompts_of_mixed_length(base.tokenizer))
    lengths = {len(example.prefix) for example in made.examples}
    assert min(lengths) <= 3 < 55 <= max(lengths)
    assert len(lengths) > 20
    return made


def phrases(texts):
    """Examples of two to five options of one to many tokens."""
    return [Example(text, PHRASES[: 2 + i % 4], (i % 2,)) for i, text in enumerate(texts)]


def means(sums, examples):
    return [[s / len(o) for s, o in zip(row, e.options, strict=True)] for row, e in zip(sums, examples, strict=True)]


def close(found, expected, tolerance=1e-5):
    """Whether nested numbers agree, by the largest difference."""
    pairs = [(f, e) for row, other in zip(found, expected, strict=True) for f, e in zip(row, other, strict=True)]
    return max(abs(f - e) for f, e in pairs) < tolerance


# Parity with the plain rule


@pytest.mark.parametrize(("kind", "side"), [("label words", None), ("label words", "left"), ("phrases", "right")])
def test_the_score_of_an_option_is_that_of_the_plain_rule(setting, kind, side):
    """Classification and multiple choice: 2 to 5 options, of 1 to 12 tokens."""
    texts = setting.texts
    examples = [Example(text, WORDS) for text in texts] if kind == "label words" else phrases(texts)
    evaluator, encoded = setting.scored(examples)
    found = means(evaluator.option_sums(encoded, batch_size=16), encoded)
    model, tokenizer = setting.base.model, setting.base.tokenizer
    expected = [plain.option_scores(model, tokenizer, e.prompt, e.options, side=side, padding=5) for e in examples]
    assert close(found, expected)


def test_the_loss_of_an_answer_is_that_of_the_plain_rule(setting):
    """Generation, training: mean cross-entropy over all tokens of the right answers."""
    examples = [Example(text, (PHRASES[i % 5],), answers=((PHRASES[i % 5],),)) for i, text in enumerate(setting.texts)]
    evaluator, encoded = setting.scored(examples, loss="answer", metrics=("f1",))
    model, tokenizer = setting.base.model, setting.base.tokenizer
    tokens = torch.cat([plain.option_log_probs(model, tokenizer, e.prompt, e.options[0]) for e in examples])
    assert float(evaluator.loss(*evaluator.batches(encoded))) == pytest.approx(-float(tokens.mean()), abs=1e-5)
    assert evaluator.score(encoded[:6], 4).loss == pytest.approx(
        -float(tokens[: sum(len(e.options[0]) for e in encoded[:6])].mean()), abs=1e-5
    )


def test_a_generated_answer_is_that_of_the_plain_rule(setting):
    examples = [Example(text, ("great.\n",), answers=(("great",),)) for text in setting.texts[::3]]
    evaluator, encoded = setting.scored(examples, "answer", ("f1", "exact_match"), max_new_tokens=8, stop=(".",))
    answers = [plain.greedy(setting.base.model, setting.base.tokenizer, e.prefix, 8, ".") for e in encoded]
    assert evaluator.answers(encoded, batch_size=4) == answers
    assert len(set(answers)) > 1
    score = evaluator.score(encoded, batch_size=5)
    assert score.metrics["exact_match"] == statistics.fmean(answer == "great" for answer in answers)


def test_perplexity_is_that_of_the_plain_rule(setting):
    examples = [Example("", (text,)) for text in setting.texts if len(text.split()) > 3]
    evaluator, encoded = setting.scored(examples, "answer", ("perplexity",))
    model, total, count = setting.base.model, 0.0, 0
    with torch.inference_mode():
        for e in encoded:
            ids = torch.tensor([[*e.prefix, *e.options[0]]])
            log_probs = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            total -= float(log_probs.gather(1, ids[0, 1:, None]).sum())
            count += len(e.options[0])
    score = evaluator.score(encoded, batch_size=7)
    assert score.loss == pytest.approx(total / count, abs=1e-5)
    assert score.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_calibration_weighs_what_the_prompt_adds(setting):
    examples = [replace(e, null_prompt="It was" if i % 2 else "") for i, e in enumerate(phrases(setting.texts[:20]))]
    evaluator, encoded = setting.scored(examples, calibrate=True)
    plain_evaluator, _ = setting.scored(examples)
    sums = plain_evaluator.option_sums(encoded)
    nulls = plain_evaluator.option_sums([e.null for e in encoded])
    worth = [[s - n for s, n in zip(row, null, strict=True)] for row, null in zip(sums, nulls, strict=True)]
    hits = [max(range(len(row)), key=row.__getitem__) in e.correct for row, e in zip(worth, encoded, strict=True)]
    score = evaluator.score(encoded)
    assert score.metrics["accuracy"] == statistics.fmean(hits)
    assert score.loss == pytest.approx(plain_evaluator.score(encoded).loss, abs=1e-6)


# The loss of a batch


@pytest.mark.parametrize("kind", ["label words", "phrases"])
def test_the_loss_is_the_mean_cross_entropy_over_the_scores(setting, kind):
    examples = [Example(t, WORDS, (i % 2,)) for i, t in enumerate(setting.texts)]
    evaluator, encoded = setting.scored(examples if kind == "label words" else phrases(setting.texts))
    scores = means(evaluator.option_sums(encoded), encoded)
    losses = [float(torch.tensor(row).logsumexp(0)) - row[e.correct[0]] for row, e in zip(scores, encoded, strict=True)]
    loss = evaluator.loss(*evaluator.batches(encoded))
    assert (loss.dtype, loss.dim()) == (torch.float32, 0)
    assert float(loss) == pytest.approx(statistics.fmean(losses), abs=1e-5)
    assert max(losses) - min(losses) > 1e-3


@pytest.mark.parametrize("loss", ["options", "answer"])
def test_padding_order_and_splitting_move_the_loss_by_rounding_only(setting, loss):
    evaluator, encoded = setting.scored(phrases(setting.texts), loss=loss)
    whole = float(evaluator.loss(*evaluator.batches(encoded)))
    for extra in (1, 7, 40):
        assert float(evaluator.loss(*evaluator.batches(encoded, extra))) == pytest.approx(whole, abs=1e-5)
    assert float(evaluator.loss(*evaluator.batches(encoded[::-1]))) == pytest.approx(whole, abs=1e-5)
    with mock.patch.object(loss_module, "TOKENS_AT_ONCE", 200):
        split = evaluator.batches(encoded, 2)
    assert len(split) > 3
    assert float(evaluator.loss(*split)) == pytest.approx(whole, abs=1e-5)


def test_padding_stays_within_what_the_model_can_read(setting):
    context = setting.base.context
    text = " ".join(setting.texts)
    with pytest.warns(UserWarning, match="are cut at the beginning"):
        evaluator, encoded = setting.scored([Example(text, PHRASES), Example("It was", PHRASES)])
    assert len(encoded[0].prefix) + max(map(len, encoded[0].options)) == context
    whole = float(evaluator.loss(*evaluator.batches(encoded)))
    assert float(evaluator.loss(*evaluator.batches(encoded, 300))) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("limit", ["TOKENS_AT_ONCE", "LOGIT_BYTES"])
def test_options_read_in_small_parts_are_worth_the_same(setting, limit):
    evaluator, encoded = setting.scored(phrases(setting.texts[:12]))
    whole = evaluator.option_sums(encoded)
    with mock.patch.object(loss_module, limit, 1):
        assert close(means(evaluator.option_sums(encoded), encoded), means(whole, encoded))


def test_the_f1_loss_counts_what_was_generated(setting):
    gold = "great"
    examples = [Example(text, (gold,), answers=((gold,),)) for text in setting.texts[::4]]
    evaluator, encoded = setting.scored(examples, loss="f1", metrics=("f1",), max_new_tokens=6, stop=(".",))
    answers = evaluator.answers(encoded)
    expected = statistics.fmean(2 / (1 + len(a.split())) if gold in a.lower().split() else 0.0 for a in answers)
    loss = evaluator.loss(*evaluator.batches(encoded))
    assert float(loss) == pytest.approx(1 - expected, abs=1e-6)
    score = evaluator.score(encoded)
    assert score.loss == pytest.approx(1 - expected, abs=1e-6)
    assert score.metrics["f1"] == pytest.approx(expected, abs=1e-6)


# The price


def shapes(module, call):
    """The shape of what a module was given, forward by forward."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    try:
        call()
    finally:
        hook.remove()
    return seen


def test_a_loss_is_one_forward_of_little_padding_and_few_logits(setting):
    """Every prompt is read once, and one position predicts the first tokens of all its options."""
    model, computed, projected, read, needed = setting.base.model, 0, 0, 0, 0
    texts = [text for text in setting.texts if text]
    for examples, loss in (
        ([Example(text, WORDS, (i % 2,)) for i, text in enumerate(texts)], "options"),
        (phrases(texts), "options"),
        (phrases(texts), "answer"),
        ([Example("", (text,)) for text in texts if len(text.split()) > 2], "answer"),
    ):
        evaluator, encoded = setting.scored(examples, loss)
        for part in (encoded[:16], encoded[16:32]):
            (batch,) = evaluator.batches(part)
            scored = [e.only_correct() if loss == "answer" else e for e in part]
            rest = sum(len(option) - 1 for e in scored for option in e.options)
            assert batch.tokens == sum(len(e.prefix) for e in scored) + rest
            embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
            ((rows, width),) = shapes(embeddings, lambda e=evaluator, b=batch: e.loss(b))
            ((_, kept, _),) = shapes(head, lambda e=evaluator, b=batch: e.loss(b))
            computed, read = computed + rows * width, read + batch.tokens
            projected, needed = projected + rows * kept, needed + len(part) + rest
    assert read / computed > 0.95
    assert needed / projected > 0.8


# The score of a split


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_score_does_not_depend_on_batches_or_order(setting, batch_size):
    for evaluator, encoded in (
        (setting.evaluator, setting.examples),
        setting.scored(phrases(setting.texts), loss="answer"),
    ):
        score, other = evaluator.score(encoded, batch_size), evaluator.score(encoded[::-1], 7)
        assert score.loss == pytest.approx(other.loss, abs=1e-5)
        assert score.metrics == other.metrics
        assert 0 < score.metrics["accuracy"] < 1


def test_any_right_option_is_a_hit(setting):
    examples = [replace(e, correct=tuple(range(len(e.options)))) for e in phrases(setting.texts)]
    evaluator, encoded = setting.scored(examples)
    assert evaluator.score(encoded).metrics == {"accuracy": 1.0}


# Noise


def test_injected_noise_has_the_deviation_that_was_asked_for():
    noise, loss = Noise(std=0.3, seed=1), torch.tensor(2.0)
    draws = [float(noise.disturb(loss, "train", step, query)) for step in range(1000) for query in range(2)]
    # Four standard errors: 0.3 / sqrt(2000) for the mean, 0.3 / sqrt(2 * 2000) for the deviation.
    assert statistics.fmean(draws) == pytest.approx(2.0, abs=4 * 0.3 / 2000**0.5)
    assert statistics.stdev(draws) == pytest.approx(0.3, abs=4 * 0.3 / 4000**0.5)
    assert len(set(draws)) == 2000


def test_injected_noise_is_a_function_of_seed_and_place():
    loss = torch.tensor(0.0)
    first, again, other = (Noise(std=1.0, seed=seed).disturb(loss, "train", 3, 0) for seed in (5, 5, 6))
    assert first == again != other
    assert Noise(std=0.0).disturb(loss, "train", 0, 0) is loss
    state = torch.get_rng_state()
    Noise(std=1.0).disturb(loss, "train", 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_variants_are_the_same_examples_in_other_orders_with_wider_padding(setting):
    noise = Noise(seed=3)
    variants = [noise.variant(setting.examples, 7, repeat) for repeat in range(6)]
    for repeat, (examples, padding) in enumerate(variants):
        assert padding == repeat
        assert sorted(examples, key=id) == sorted(setting.examples, key=id)
    assert len({tuple(map(id, examples)) for examples, _ in variants}) > 3
    assert noise.variant(setting.examples, 7, 2) == variants[2]
    losses = [float(setting.evaluator.loss(*setting.evaluator.batches(*variant))) for variant in variants]
    assert 0 < max(losses) - min(losses) < 1e-5


@pytest.mark.parametrize(("repeats", "due"), [(8, [0, 3, 6]), (0, [])])
def test_noise_is_measured_every_so_many_steps_from_the_first(repeats, due):
    noise = Noise(repeats=repeats, every=3)
    assert [step for step in range(8) if noise.due(step)] == due
