"""Texts that share rows are worth what they are worth alone, in every family that is let in; others are kept out."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from zo_runner.models.batching import option_batch
from zo_runner.models.encoding import Encoded
from zo_runner.models.likelihood import PACKABLE, break_even, option_log_probs
from zo_runner.models.lora import attach_lora

# One much longer than the rest, options of one to seven tokens, and lengths that leave padding.
EXAMPLES = [
    Encoded(tuple(range(3, 40)), ((1, 2, 3), (4,), tuple(range(50, 57)))),
    Encoded((5, 6), ((1, 2), (3,))),
    Encoded((8,), ((9,), (10, 11, 12, 13))),
    Encoded((7, 8, 9, 10), ((11, 12, 13),)),
]


def model_of(family, **settings):
    """A small random model of a family, with matrices so large that what a token sees matters."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
        "initializer_range": 0.2,
    }
    others = {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family)
    known = {key: value for key, value in {**sizes, **others}.items() if hasattr(config, key)}
    narrow = {"ffn_dim": 48, "word_embed_proj_dim": 32} if family == "opt" else {}
    config = AutoConfig.for_model(family, **{**known, **special, **narrow, **settings})
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def sums(model, examples, width, **options):
    batch = option_batch(examples, break_even=width, pad_id=0, device="cpu", **options)
    return option_log_probs(model, batch)


def alone(model, example):
    """One option a forward, full logits, no padding."""
    found = []
    for option in example.options:
        ids = torch.tensor([[*example.prefix, *option]])
        log_probs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        start = len(example.prefix) - 1
        found.append(float(sum(log_probs[start + s, token] for s, token in enumerate(option))))
    return found


@pytest.mark.parametrize("family", sorted(PACKABLE))
def test_texts_that_share_a_row_are_worth_what_they_are_alone(family):
    settings = {"sliding_window": None} if family in ("mistral", "starcoder2") else {}
    model = model_of(family, **settings)
    assert break_even(model) == 6 * 32
    expected = [alone(model, example) for example in EXAMPLES]
    spread = {round(value, 3) for row in expected for value in row}
    assert len(spread) > 6
    for width in (10**6, 192, 1, None):  # one row, what it would be, a row each, and none that branches
        found = sums(model, EXAMPLES, width, extra_padding=3)
        for row, other in zip(found.tolist(), expected, strict=True):
            assert row[: len(other)] == pytest.approx(other, abs=1e-4)
            assert all(value == -torch.inf for value in row[len(other) :])


@pytest.mark.parametrize("family", ["opt", "qwen3"])
def test_a_text_is_not_moved_by_its_neighbours_nor_an_option_by_another(family):
    model = model_of(family)
    before = sums(model, EXAMPLES, 10**6)
    other = replace(EXAMPLES[0], prefix=(60, *EXAMPLES[0].prefix[1:]), options=((1, 9, 3), *EXAMPLES[0].options[1:]))
    after = sums(model, [other, *EXAMPLES[1:]], 10**6)
    assert torch.equal(before[1:], after[1:])
    assert (before[0] != after[0]).all()
    longer = replace(EXAMPLES[0], options=((1, 9, 3), *EXAMPLES[0].options[1:]))
    after = sums(model, [longer, *EXAMPLES[1:]], 10**6)
    assert torch.equal(before[0, 1:], after[0, 1:])
    assert before[0, 0] != after[0, 0]


@pytest.mark.parametrize("family", ["opt", "qwen3"])
@pytest.mark.parametrize("width", [10**6, None])
def test_every_copy_of_a_repeated_batch_has_the_losses_of_the_batch(family, width):
    model = model_of(family)
    batch = option_batch(EXAMPLES, break_even=width, pad_id=0, device="cpu")
    found = option_log_probs(model, batch.repeated(3)).unflatten(0, (3, len(batch)))
    torch.testing.assert_close(found, option_log_probs(model, batch).expand(3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["opt", "qwen3"])
def test_low_precision_packs_as_well(family):
    model = model_of(family, initializer_range=0.02)
    expected = sums(model, EXAMPLES, None)
    found = sums(model.to(torch.bfloat16), EXAMPLES, 10**6)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.02)


def test_the_gradient_is_that_of_rows_without_neighbours():
    gradients = []
    for width in (10**6, None):
        model = model_of("qwen3")
        weight = model.get_input_embeddings().weight.requires_grad_(True)
        loss = sums(model, EXAMPLES, width).nan_to_num(neginf=0.0).sum()
        gradients.append(torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert gradients[0].norm() > 1


def test_an_adapter_leaves_a_model_packable():
    model = attach_lora(model_of("opt"), rank=2, alpha=2, scaling="topology", target_modules=["q_proj"], seed=0)
    assert break_even(model) == 6 * 32


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bloom", {"n_head": 4}),  # a bias by distance, and no positions to give
        ("mamba", {"state_size": 4}),  # a state that runs through a row
        ("mistral", {"sliding_window": 16}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        ("qwen3", {"attn_implementation": "eager"}),
    ],
    ids=["alibi", "recurrent", "window", "window in some layers", "another attention"],
)
def test_others_read_every_text_in_a_row_of_its_own(family, settings):
    model = model_of(family, **settings)
    assert break_even(model) is None
    expected = [alone(model, example) for example in EXAMPLES]
    for row, other in zip(sums(model, EXAMPLES, None).tolist(), expected, strict=True):
        assert row[: len(other)] == pytest.approx(other, abs=1e-4)


def test_code_that_a_checkpoint_brings_is_not_trusted_to_pack():
    model = model_of("opt")
    model.__class__ = type("OPTForCausalLM", (type(model),), {"__module__": "transformers_modules.somewhere"})
    assert break_even(model) is None
