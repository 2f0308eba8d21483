"""Rank-1 atoms: views of the adapter that add up to B A, in orders that miss none; and the scaling PEFT applies."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from zo_runner.methods.atoms import ORDERS, atom, atom_at, factors, lora_alpha
from zo_runner.methods.random import normal
from zo_runner.models.lora import attach_lora, lora_groups

SCALINGS = {
    "canonical": lambda alpha, rank: alpha / rank,
    "rslora": lambda alpha, rank: alpha / math.sqrt(rank),
    "topology": lambda alpha, rank: alpha,
}


def tiny_opt(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=32,
                hidden_size=16,
                word_embed_proj_dim=16,
                num_hidden_layers=2,
                ffn_dim=24,
                num_attention_heads=2,
                max_position_embeddings=16,
            )
        )
    return model.to(dtype).eval()


def attached(scaling="canonical", rank=4, alpha=16.0, targets=("q_proj", "v_proj"), seed=0, dtype=torch.float32):
    model = attach_lora(
        tiny_opt(dtype), rank=rank, alpha=alpha, scaling=scaling, target_modules=list(targets), seed=seed
    )
    return model, lora_groups(model)


@pytest.mark.parametrize(
    ("scaling", "alpha", "rank", "gamma"),
    [
        ("canonical", 16.0, 1, 16.0),
        ("canonical", 16.0, 64, 16.0),
        ("rslora", 16.0, 64, 16.0),
        ("topology", 16.0, 1, 16.0),
        ("topology", 16.0, 64, 1024.0),
        ("topology", 0.5, 8, 4.0),
    ],
)
def test_lora_alpha(scaling, alpha, rank, gamma):
    assert lora_alpha(scaling, alpha, rank) == gamma


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match=r"^Invalid scaling: 'sqrt'\. Must be one of canonical, rslora, topology\.$"):
        lora_alpha("sqrt", 16.0, 4)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("rank", "alpha"), [(1, 16.0), (4, 16.0), (16, 1.5)])
def test_peft_applies_the_scaling_that_the_method_names(scaling, rank, alpha):
    _, groups = attached(scaling, rank, alpha)
    expected = SCALINGS[scaling](alpha, rank)
    assert [group["scaling"] for group in groups] == pytest.approx([expected] * 4, rel=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_forward_adds_s_b_a(scaling):
    """The scaling that the groups state is the one the model computes with."""
    model, groups = attached(scaling, rank=4, alpha=3.0)
    group = groups[0]
    layer = dict(model.named_modules())["base_model.model." + group["name"]]
    a_RI, b_OR = factors(group)
    b_OR.copy_(normal(b_OR.shape, 0, "B"))
    x = normal((5, a_RI.shape[1]), 0, "x")
    expected = layer.base_layer(x) + SCALINGS[scaling](3.0, 4) * x @ (b_OR @ a_RI).T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_atoms_are_views():
    a_RI, b_OR = torch.zeros(3, 5), torch.zeros(4, 3)
    a_I, b_O = atom(a_RI, b_OR, 1)
    a_I += 1
    b_O += 2
    assert a_RI.sum(dim=1).tolist() == [0, 5, 0]
    assert b_OR.sum(dim=0).tolist() == [0, 8, 0]
    assert a_I.shape == (5,)
    assert b_O.shape == (4,)


def test_the_atoms_add_up_to_b_a():
    a_RI, b_OR = normal((3, 5), 0, "A").double(), normal((4, 3), 0, "B").double()
    total = sum(torch.outer(b_O, a_I) for a_I, b_O in (atom(a_RI, b_OR, k) for k in range(3)))
    torch.testing.assert_close(total, b_OR @ a_RI, rtol=1e-14, atol=1e-14)


def test_factors_are_the_pair_itself():
    pair = [torch.zeros(3, 5), torch.zeros(4, 3)]
    a_RI, b_OR = factors({"params": pair})
    assert a_RI is pair[0]
    assert b_OR is pair[1]


@pytest.mark.parametrize("shapes", [[(3, 5)], [(3, 5), (4, 2)], [(3, 5), (3,)], [(3, 5), (4, 3), (1, 1)]])
def test_a_group_that_is_no_pair_is_refused(shapes):
    with pytest.raises(ValueError, match=r"^Invalid parameter group: .*\. Must be one pair A .*\.$"):
        factors({"params": [torch.zeros(shape) for shape in shapes]})


@pytest.mark.parametrize("rank", [1, 2, 5, 8])
def test_cyclic_and_shuffled_passes_are_permutations(rank):
    for order in ("cyclic", "shuffled"):
        for start in range(0, 10 * rank, rank):
            assert sorted(atom_at(order, start + i, rank, 3) for i in range(rank)) == list(range(rank))


def test_shuffled_passes_differ_and_depend_on_the_seed():
    passes = [tuple(atom_at("shuffled", 8 * p + i, 8, 0) for i in range(8)) for p in range(50)]
    assert len(set(passes)) > 45
    assert passes != [tuple(atom_at("shuffled", 8 * p + i, 8, 1) for i in range(8)) for p in range(50)]


def test_each_place_of_a_shuffled_pass_is_uniform():
    firsts = [atom_at("shuffled", 4 * p, 4, 0) for p in range(2000)]
    assert all(abs(firsts.count(k) - 500) < 5 * math.sqrt(2000 * 3 / 16) for k in range(4))


def test_random_order_is_uniform_and_independent_of_the_step_before():
    atoms = [atom_at("random", step, 4, 0) for step in range(4000)]
    pairs = [4 * x + y for x, y in itertools.pairwise(atoms)]
    assert all(abs(atoms.count(k) - 1000) < 5 * math.sqrt(4000 * 3 / 16) for k in range(4))
    assert all(abs(pairs.count(k) - 250) < 5 * math.sqrt(4000 * 15 / 256) for k in range(16))


@pytest.mark.parametrize("order", ORDERS)
def test_the_atom_is_a_function_of_seed_and_step(order):
    forwards = [atom_at(order, step, 5, 9) for step in range(30)]
    backwards = [atom_at(order, step, 5, 9) for step in reversed(range(30))]
    assert forwards == backwards[::-1]
    assert set(forwards) == set(range(5))


def test_an_attached_adapter_starts_at_zero_with_kaiming_rows():
    _, groups = attached(rank=16)
    for group in groups:
        a_RI, b_OR = factors(group)
        assert not b_OR.any()
        assert a_RI.shape == (16, 16)
        bound = 1 / math.sqrt(16)
        assert a_RI.abs().max() <= bound
        assert a_RI.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.25)
    assert len({group["params"][0].sum().item() for group in groups}) == len(groups)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_adapter_is_float32_and_the_same_on_a_base_of_any_dtype(dtype):
    _, low = attached(dtype=dtype)
    _, full = attached()
    for one, other in zip(low, full, strict=True):
        assert all(p.dtype == torch.float32 for p in one["params"])
        assert all(torch.equal(x, y) for x, y in zip(one["params"], other["params"], strict=True))


def test_an_adapter_is_keyed_by_module_name_so_another_module_changes_none():
    few = {group["name"]: group["params"][0] for group in attached()[1]}
    many = {group["name"]: group["params"][0] for group in attached(targets=("q_proj", "k_proj", "v_proj", "fc1"))[1]}
    assert len(many) == 8
    assert all(torch.equal(a_RI, many[name]) for name, a_RI in few.items())
    other = {group["name"]: group["params"][0] for group in attached(seed=1)[1]}
    assert not any(torch.equal(a_RI, other[name]) for name, a_RI in few.items())


def test_attaching_neither_reads_nor_moves_the_global_generators():
    adapters = []
    for seed in (1, 2):
        base = tiny_opt()
        torch.manual_seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        model = attach_lora(base, rank=4, alpha=16.0, scaling="topology", target_modules="all-linear", seed=0)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        assert random.getstate() == before[2]
        adapters.append([p for group in lora_groups(model) for p in group["params"]])
    assert all(torch.equal(x, y) for x, y in zip(*adapters, strict=True))
