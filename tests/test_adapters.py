"""Adapters: what is saved is what was trained, for anybody who has PEFT."""

import itertools
import json
import math
import os

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from zo_runner.assets import ASSETS, asset_path
from zo_runner.errors import UserError
from zo_runner.models import lora
from zo_runner.models.base_model import load_base

RANK, ALPHA = 3, 0.7  # alpha * rank / rank is not alpha in floating point
SCALES = {"canonical": ALPHA / RANK, "rslora": ALPHA / math.sqrt(RANK), "topology": ALPHA}
IDS = torch.tensor([[5, 17, 33, 200, 9, 41]])


def base_model(name, dtype="float32"):
    return load_base(name, embedded=True, device=torch.device("cpu"), dtype=dtype).model


def attached(name="pocket_opt", dtype="float32", scaling="canonical", seed=0, targets=("q_proj", "v_proj")):
    model = base_model(name, dtype)
    return lora.attach_lora(model, rank=RANK, alpha=ALPHA, scaling=scaling, target_modules=targets, seed=seed)


def fill(model, seed=0):
    """Numbers in B, which starts at zero, and other ones in A."""
    generator = torch.Generator().manual_seed(seed)
    for group in lora.lora_groups(model):
        for p in group["params"]:
            p.data.copy_(torch.randn(p.shape, generator=generator) / 10)


@torch.inference_mode()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


def bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# Round trip


@pytest.mark.parametrize(
    ("name", "scaling", "dtype"),
    [
        ("pocket_opt", "canonical", "float32"),
        ("pocket_opt", "topology", "bfloat16"),
        ("pocket_qwen3", "rslora", "float32"),
        ("pocket_qwen3", "topology", "float32"),
    ],
)
def test_plain_peft_reproduces_the_logits_bit_for_bit(name, scaling, dtype, tmp_path):
    model = attached(name, dtype, scaling)
    untouched = logits(model)
    fill(model)
    lora.save(model, tmp_path / "adapter")
    fresh = AutoModelForCausalLM.from_pretrained(asset_path(name), dtype=getattr(torch, dtype))
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(model), untouched)


@pytest.mark.parametrize(("scaling", "gamma"), [("canonical", ALPHA), ("rslora", ALPHA), ("topology", ALPHA * RANK)])
def test_the_saved_adapter_says_its_own_gamma_and_its_targets_in_one_order(scaling, gamma, tmp_path):
    """The library keeps the targets in a set, and texts have other hashes in every process."""
    names = ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]
    lora.save(attached(scaling=scaling, targets=names[::-1]), tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["lora_alpha"], saved["r"], saved["use_rslora"]) == (gamma, RANK, scaling == "rslora")
    assert saved["target_modules"] == names


@pytest.mark.parametrize("scaling", SCALES)
def test_the_model_adds_s_b_a_to_the_weight(scaling):
    model = attached(scaling=scaling)
    fill(model)
    group = lora.lora_groups(model)[0]
    a_RI, b_OR = group["params"]
    module = dict(model.named_modules())["base_model.model." + group["name"]]
    x = torch.randn(2, a_RI.shape[1], generator=torch.Generator().manual_seed(0))
    added = module(x) - module.base_layer(x)
    assert group["scaling"] == pytest.approx(SCALES[scaling])
    torch.testing.assert_close(added, SCALES[scaling] * x @ (b_OR @ a_RI).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "full", "dtype"),
    [("pocket_opt", False, "bfloat16"), ("pocket_opt", True, "bfloat16"), ("pocket_qwen3", True, "float32")],
)
def test_restore_brings_back_every_bit_that_was_saved(name, full, dtype, tmp_path):
    model = base_model(name, dtype) if full else attached(name, dtype)
    if not full:
        fill(model)
    before, said = bits(model), logits(model)
    lora.save(model, tmp_path)
    groups = lora.dense_groups(model) if full else lora.lora_groups(model)
    for p in (p for group in groups for p in group["params"]):
        p.data.add_(0.25)
    assert not torch.equal(logits(model), said)
    lora.restore(model, tmp_path)
    assert same(bits(model), before)
    assert torch.equal(logits(model), said)


# Init


@pytest.mark.parametrize("name", ASSETS)
def test_the_initial_adapter_changes_nothing_lies_in_its_bounds_and_is_the_same_on_every_base(name):
    plain = logits(base_model(name))
    model, low = attached(name), attached(name, "bfloat16")
    assert torch.equal(logits(model), plain)
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    for group, other in zip(lora.lora_groups(model), lora.lora_groups(low), strict=True):
        a_RI, b_OR = group["params"]
        bound = 1 / math.sqrt(a_RI.shape[1])
        assert float(a_RI.abs().max()) <= bound
        # Uniform: the deviation is bound / sqrt(3); 384 numbers or more, four standard errors.
        assert float(a_RI.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert not b_OR.any()
        assert group["name"] == other["name"]
        for p, q in zip(group["params"], other["params"], strict=True):
            assert p.dtype == q.dtype == torch.float32
            assert torch.equal(p, q)


def test_the_initial_adapter_follows_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = bits(attached(seed=4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = bits(attached(seed=4)), bits(attached(seed=5))
    assert same(first, again)
    differing = [name for name in first if not torch.equal(first[name], other[name])]
    assert differing == [name for name in first if "lora_A" in name]


def test_modules_are_initialised_independently_of_each_other():
    few, many = attached(targets=("v_proj",)), attached(targets=("q_proj", "v_proj", "fc1"))
    drawn = {group["name"]: group["params"][0] for group in lora.lora_groups(many)}
    for group in lora.lora_groups(few):
        assert torch.equal(group["params"][0], drawn[group["name"]])
    assert not any(torch.equal(p, q) for p, q in itertools.combinations(drawn.values(), 2) if p.shape == q.shape)


# The wrapped model


@pytest.mark.parametrize(
    ("targets", "per_layer"), [(("q_proj", "v_proj"), 2), ("all-linear", 6), (("fc1",), 1)], ids=str
)
def test_the_groups_are_the_modules_that_were_chosen(targets, per_layer):
    model = attached(targets=targets)
    groups = lora.lora_groups(model)
    assert len(groups) == per_layer * model.config.num_hidden_layers
    assert len({group["name"] for group in groups}) == len(groups)
    for group in groups:
        a_RI, b_OR = group["params"]
        assert a_RI.shape[0] == b_OR.shape[1] == RANK
        assert "lm_head" not in group["name"]


def test_names_that_match_nothing_are_refused_with_those_that_exist():
    names = "fc1, fc2, k_proj, lm_head, out_proj, q_proj, v_proj"
    with pytest.raises(UserError, match=rf"^Invalid adapter\.target_modules: \['nothing'\]\. Must .*: {names}\."):
        attached(targets=("nothing",))
    with pytest.raises(ValueError, match=r"^Invalid model: no LoRA module"):
        lora.lora_groups(base_model("pocket_opt"))


def test_a_full_model_is_one_group_in_which_tied_weights_stand_once():
    model = base_model("pocket_opt")
    (group,) = lora.dense_groups(model)
    assert len(group["names"]) == len(group["params"]) == len({id(p) for p in group["params"]})
    assert sum(p.numel() for p in group["params"]) == model.num_parameters()
    assert "lm_head.weight" not in group["names"]


# What is broken


@pytest.fixture
def saved(tmp_path):
    """An adapter as a run saves it, and the model it came from."""
    model = attached()
    fill(model)
    lora.save(model, tmp_path)
    return model, tmp_path


def rewrite(folder, change, name="adapter_model.safetensors"):
    tensors = load_file(str(folder / name))
    change(tensors)
    save_file(tensors, str(folder / name), metadata={"format": "pt"})


A_NAME = "base_model.model.model.decoder.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update({A_NAME: t[A_NAME][:1].clone()}), r"q_proj.lora_A.weight is torch.float32 of \(1, 128\)"),
        (lambda t: t.pop(A_NAME), "q_proj.lora_A.weight is only in the model"),
        (lambda t: t.update({"more": torch.zeros(1)}), "more is only in the file"),
    ],
    ids=["one row, which would be stretched", "missing", "more"],
)
def test_other_tensors_than_a_run_saved_are_not_read_back(change, told, saved):
    model, folder = saved
    rewrite(folder, change)
    before = bits(model)
    with pytest.raises(UserError, match=rf"^Invalid {folder}: .*{told}.*\. Must "):
        lora.restore(model, folder)
    assert same(bits(model), before)


def pipe(folder):
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")


def cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def config(folder):
    file = folder / "adapter_config.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**known, "target_modules": 3}), encoding="utf-8")


def tensor(folder):
    rewrite(folder, lambda tensors: tensors.pop(A_NAME))


@pytest.mark.parametrize("spoil", [cut, pipe, tensor, config])
def test_a_broken_adapter_is_refused_by_its_key(spoil, saved):
    _, folder = saved
    spoil(folder)
    with pytest.raises(UserError, match=rf"^Invalid evaluate\.adapter: '{folder}'\. Must be an adapter (of|with) "):
        lora.load(base_model("pocket_opt"), folder, "evaluate.adapter")


def test_a_full_model_that_lacks_a_tensor_is_not_filled_with_random_numbers(tmp_path):
    model = base_model("pocket_opt")
    lora.save(model, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop(next(iter(tensors))), "model.safetensors")
    with pytest.raises(UserError, match=r"not all of the model fits: .* Must "):
        lora.restore(model, tmp_path)
