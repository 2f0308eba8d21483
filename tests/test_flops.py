"""Estimated operations against torch's own counter, which sees every matrix product that is computed."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from zo_runner.assets import ASSETS
from zo_runner.methods.first_order import differentiated
from zo_runner.models import lora
from zo_runner.models.base_model import load_base
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.flops import FlopMeter
from zo_runner.tasks.base import Scoring

# Both count the same matrix products. What a library version may add, such as the angles of rotary positions, is small.
TOLERANCE = 1e-3
ROWS, LENGTH = 4, 30


def base_of(name):
    return load_base(name, embedded=True, device=torch.device("cpu"), dtype="float32")


def adapted(base, targets="all-linear"):
    return lora.attach_lora(base.model, rank=8, alpha=16, scaling="topology", target_modules=targets, seed=0)


def counted(call):
    """What torch counts; the plain kernel, since it does not know the operations of the fused one on a CPU."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def examples(lengths, options):
    return [Encoded(tuple(range(5, 5 + length)), options, answers=(("gold",),)) for length in lengths]


@pytest.mark.parametrize("keep", [0, 1, torch.full((ROWS, 2), 7)], ids=["all logits", "one", "two of each row"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("name", ASSETS)
def test_a_forward_without_padding_takes_what_torch_counts(name, wrapped, keep):
    base = base_of(name)
    model = adapted(base) if wrapped else base.model
    meter = FlopMeter(base.model)
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH)
    expected = counted(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=keep))
    assert meter.total == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("name", ASSETS)
@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("options", ((7,), (8,))),
        ("options", ((7, 8, 9), (8,), (9, 10))),
        ("answer", ((7, 8, 9),)),
        ("f1", ((7,),)),
    ],
    ids=["single tokens", "texts that branch", "answer", "generated"],
)
def test_what_a_loss_computes_is_counted_padding_and_masks_included(name, loss, options):
    base = base_of(name)
    model = adapted(base, ["q_proj", "v_proj"])
    metrics = ("f1",) if loss == "f1" else ("accuracy",)
    scoring = Scoring(loss, metrics, max_new_tokens=5, stop=())
    evaluator = Evaluator(model, scoring, pad_id=base.pad_id, context=base.context, tokenizer=base.tokenizer)
    batches = evaluator.batches(examples([4, 9, 9, 21], options))
    meter = FlopMeter(base.model)
    expected = counted(lambda: evaluator.loss(*batches))
    assert meter.total == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(
    "config",
    [
        # Projections between embedding and layers, and matrices that are stored the other way round.
        OPTConfig(vocab_size=90, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                  word_embed_proj_dim=16, do_layer_norm_before=False),
        GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_other_architectures_are_read_off_their_weights(config):
    model = AutoModelForCausalLM.from_config(config).eval()
    meter = FlopMeter(model)
    expected = counted(lambda: model(input_ids=torch.arange(60).reshape(2, 30), use_cache=False))
    assert meter.total == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("trained", ["adapter", "adapter and the weights under it", "everything"])
@pytest.mark.parametrize("name", ASSETS)
def test_a_forward_and_its_backward_take_what_torch_counts(name, trained):
    base = base_of(name)
    model = adapted(base, ["q_proj", "v_proj"])
    groups = lora.lora_groups(model)
    leaves = [p for group in groups for p in group["params"]]
    if trained == "adapter and the weights under it":
        leaves += [group["weight"] for group in groups]
    elif trained == "everything":
        leaves = list(model.parameters())
    meter = FlopMeter(base.model)
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH)
    with differentiated(leaves), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, use_cache=False).logits.logsumexp(-1).mean()
        torch.autograd.backward(loss, inputs=leaves)
    assert meter.total == pytest.approx(counter.get_total_flops(), rel=1e-2)


def test_the_formula_is_the_documented_one():
    base = base_of("pocket_qwen3")
    meter, config, rows, read = FlopMeter(base.model), base.model.config, 2, 10
    base.model(input_ids=torch.arange(rows * read).reshape(rows, read), logits_to_keep=1)
    matrices = [p.numel() for layer in base.model.model.layers for p in layer.parameters() if p.ndim == 2]
    attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    head = config.vocab_size * config.hidden_size
    assert meter.total == rows * read * (2 * sum(matrices) + 4 * attention * read) + 2 * head * rows


def test_it_adds_up_until_it_is_closed():
    base = base_of("pocket_opt")
    meter, ids = FlopMeter(base.model), torch.arange(10)[None]
    assert meter.total == 0
    base.model(input_ids=ids)
    once = meter.total
    base.model(input_ids=ids)
    assert meter.total == 2 * once > 0
    meter.close()
    base.model(input_ids=ids)
    assert meter.total == 2 * once
