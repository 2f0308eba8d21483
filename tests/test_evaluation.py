"""The loss of a batch is the loss that plain transformers would compute, at the price of one position per example."""

import dataclasses
import statistics

import pytest
import torch
from torch.nn.functional import cross_entropy

from zo_runner.assets import ASSETS
from zo_runner.encoding import Encoder
from zo_runner.evaluation import Evaluator, Noise
from zo_runner.models import load_base
from zo_runner.tasks.base import Example

WORDS = ("terrible", "great")
TEXTS = (
    "It was",
    "The soup was bland. It was",
    "Last night the plot felt really dull and lazy. It was",
    "I found the garden sunny. It was",
    "The room was damp though the terrace looked airy. It was",
    "Stale bread. It was",
)


@dataclasses.dataclass
class Setting:
    """One pocket model, its evaluator and six examples of different lengths."""

    base: object
    evaluator: Evaluator
    encoded: list


@pytest.fixture(scope="module", params=ASSETS)
def setting(request):
    base = load_base(request.param, embedded=True, device=torch.device("cpu"), dtype="float32")
    encoder = Encoder(base.tokenizer, WORDS, 64)
    examples = [Example(text, i % 2) for i, text in enumerate(TEXTS)]
    evaluator = Evaluator(base.model, encoder.options(examples[0]), base.pad_id)
    return Setting(base, evaluator, encoder.prompts(examples))


@torch.inference_mode()
def plain_loss(setting, examples, side):
    """Mean cross-entropy over the label words, from full logits of a padded and masked batch."""
    width = max(len(e.ids) for e in examples) + 2
    ids, mask, last = [], [], []
    for e in examples:
        pad, own = [setting.base.pad_id] * (width - len(e.ids)), list(e.ids)
        ids.append(pad + own if side == "left" else own + pad)
        mask.append([0] * len(pad) + [1] * len(own) if side == "left" else [1] * len(own) + [0] * len(pad))
        last.append(width - 1 if side == "left" else len(own) - 1)
    logits = setting.base.model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
    rows = logits[torch.arange(len(examples)), torch.tensor(last)][:, setting.evaluator.option_ids]
    return float(cross_entropy(rows.double(), torch.tensor([e.label for e in examples])))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_without_a_mask_is_the_loss_with_one(setting, side):
    loss = setting.evaluator.loss(setting.evaluator.batch(setting.encoded))
    assert loss.dtype == torch.float32
    assert loss.dim() == 0
    assert float(loss) == pytest.approx(plain_loss(setting, setting.encoded, side), abs=1e-5)


def test_splitting_a_batch_by_length_does_not_change_its_loss(setting):
    evaluator, encoded = setting.evaluator, setting.encoded
    evaluator = Evaluator(setting.base.model, evaluator.option_ids.tolist(), setting.base.pad_id)
    evaluator.overhead = 1
    split = evaluator.batches(encoded, 2)
    assert len(split) > 1
    assert float(evaluator.loss(*split)) == pytest.approx(plain_loss(setting, encoded, "right"), abs=1e-5)


def test_the_loss_is_the_mean_over_examples(setting):
    evaluator = setting.evaluator
    each = [float(evaluator.loss(evaluator.batch([example]))) for example in setting.encoded]
    assert max(each) - min(each) > 1e-3
    assert float(evaluator.loss(evaluator.batch(setting.encoded))) == pytest.approx(statistics.fmean(each), abs=1e-5)


def test_padding_and_order_move_the_loss_by_rounding_only(setting):
    evaluator, encoded = setting.evaluator, setting.encoded
    loss = float(evaluator.loss(evaluator.batch(encoded)))
    for extra in (1, 7, 40):
        assert float(evaluator.loss(evaluator.batch(encoded, extra))) == pytest.approx(loss, abs=1e-5)
    assert float(evaluator.loss(evaluator.batch(encoded[::-1]))) == pytest.approx(loss, abs=1e-5)


def test_only_the_last_prompt_token_goes_through_the_vocabulary(setting):
    shapes = []
    head = setting.base.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    try:
        logits = setting.evaluator.logits(setting.evaluator.batch(setting.encoded, 5))
    finally:
        hook.remove()
    assert shapes == [(len(TEXTS), 1, setting.base.model.config.hidden_size)]
    assert logits.shape == (len(TEXTS), len(WORDS))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_a_score_is_that_of_an_unbatched_loop(setting, batch_size):
    losses, hits = [], []
    with torch.inference_mode():
        for example in setting.encoded:
            logits = setting.evaluator.logits(setting.evaluator.batch([example]))[0].double()
            losses.append(float(torch.logsumexp(logits, 0) - logits[example.label]))
            hits.append(int(logits.argmax()) == example.label)
    score = setting.evaluator.score(setting.encoded, batch_size)
    assert score.loss == pytest.approx(statistics.fmean(losses), abs=1e-5)
    assert score.accuracy == statistics.fmean(hits)


def test_the_score_does_not_depend_on_the_order_of_the_rows(setting):
    forward, backward = (setting.evaluator.score(rows) for rows in (setting.encoded, setting.encoded[::-1]))
    assert forward.loss == pytest.approx(backward.loss, abs=1e-5)
    assert forward.accuracy == backward.accuracy


def test_an_evaluation_is_repeatable_bit_for_bit(setting):
    batch = setting.evaluator.batch(setting.encoded)
    assert torch.equal(setting.evaluator.logits(batch), setting.evaluator.logits(batch))


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
    state = torch.get_rng_state()
    Noise(std=1.0).disturb(loss, "train", 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_noise_leaves_the_loss_as_it_is():
    loss = torch.tensor(0.1)
    assert Noise(std=0.0).disturb(loss, "train", 0, 0) is loss


def test_variants_are_the_same_examples_in_other_orders_with_wider_padding(setting):
    noise = Noise(seed=3)
    variants = [noise.variant(setting.encoded, 7, repeat) for repeat in range(6)]
    for repeat, (examples, padding) in enumerate(variants):
        assert padding == repeat
        assert sorted(examples, key=id) == sorted(setting.encoded, key=id)
    assert len({tuple(map(id, examples)) for examples, _ in variants}) > 3
    assert noise.variant(setting.encoded, 7, 2) == variants[2]
    losses = [float(setting.evaluator.loss(setting.evaluator.batch(*variant))) for variant in variants]
    assert max(losses) - min(losses) < 1e-5


@pytest.mark.parametrize(("repeats", "due"), [(8, [0, 3, 6]), (0, [])])
def test_noise_is_measured_every_so_many_steps_from_the_first(repeats, due):
    noise = Noise(repeats=repeats, every=3)
    assert [step for step in range(8) if noise.due(step)] == due
