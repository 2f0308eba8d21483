"""The slope on real language models, through PEFT and the evaluator, against autograd and against theory."""

import copy
import math

import numpy as np
import pytest
import torch

from tests.conformance.cases import direction_of, flatten
from zo_runner.config.instantiate import build
from zo_runner.methods import AR1ZO
from zo_runner.methods.random import generator, normal
from zo_runner.models.lora import attach_lora, dense_groups, lora_groups


def parts_of(node, model, *, rank=4, alpha=4.0, target_modules="all-linear"):
    """The model that a method trains, and its parameter groups, as a run would make them."""
    if node["trains"] == "full":
        return model, dense_groups(model)
    model = attach_lora(model, rank=rank, alpha=alpha, scaling=node["scaling"], target_modules=target_modules, seed=0)
    return model, lora_groups(model)


def test_the_loss_is_the_cross_entropy_of_the_options_after_each_prompt(subject):
    """Batched and cut to one position, it is what full forwards of one prompt at a time give."""
    evaluator = subject.evaluator(subject.model)
    logits = [
        subject.model(torch.tensor([example.prefix])).logits[0, -1, [token for (token,) in example.options]]
        for example in subject.examples
    ]
    labels = torch.tensor([example.correct[0] for example in subject.examples])
    expected = torch.nn.functional.cross_entropy(torch.stack(logits), labels)
    for extra_padding in (0, 5):
        torch.testing.assert_close(evaluator.loss(*evaluator.batches(subject.examples, extra_padding)), expected)


def test_the_slope_is_the_directional_derivative_that_autograd_finds(node, subject):
    model, groups = parts_of(node, subject.model)
    for group in groups if "name" in groups[0] else []:
        b_OR = group["params"][1]
        b_OR.copy_(0.02 * normal(b_OR.shape, 0, "B", group["name"]))
    parameters = [p for group in groups for p in group["params"]]
    evaluator = subject.evaluator(model)
    batches = evaluator.batches(subject.examples)
    for p in parameters:
        p.requires_grad_(True)
    gradient = flatten(torch.autograd.grad(evaluator.loss(*batches), parameters))
    for p in parameters:
        p.requires_grad_(False)
    method = build({**node, "lr": 0.0, "eps": 1e-3})(groups, seed=0)
    found, exact = [], []
    for step in range(6):
        exact.append(float(gradient @ direction_of(method, step)))
        method.step(lambda: evaluator.loss(*batches))
        found.append(method.report.slopes[0])
    # One-sided, the curvature stands in the slope: u'Hu eps / 2.
    rtol = subject.rtol if method.two_sided else 20 * subject.rtol
    assert np.linalg.norm(np.subtract(found, exact)) <= rtol * np.linalg.norm(exact)


RANKS = (1, 8, 64)
NUM_DIRECTIONS = 40
NUM_ADAPTERS = 8


def rms_slope(subject, *, atoms, scaling, rank):
    """Root mean square slope at B = 0 over directions, atoms and draws of A."""
    model = attach_lora(
        copy.deepcopy(subject.model), rank=rank, alpha=4.0, scaling=scaling, target_modules=["q_proj", "v_proj"], seed=0
    )
    groups = lora_groups(model)
    evaluator = subject.evaluator(model)
    batches = evaluator.batches(subject.examples)
    method = AR1ZO(groups, lr=0.0, eps=1e-2, atoms=atoms)
    squares = []
    for step in range(NUM_DIRECTIONS):
        if step % (NUM_DIRECTIONS // NUM_ADAPTERS) == 0:
            for group in groups:
                a_RI = group["params"][0]
                bound = 1 / math.sqrt(a_RI.shape[1])
                a_RI.uniform_(-bound, bound, generator=generator(step, "adapter", group["name"]))
        method.step(lambda: evaluator.loss(*batches))
        squares.append(method.report.slopes[0] ** 2)
    return math.sqrt(np.mean(squares))


@pytest.mark.parametrize("subject", ["pocket_opt", pytest.param("pocket_qwen3", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize(
    ("atoms", "scaling", "exponent"),
    [
        ("one", "canonical", -1.0),
        ("one", "rslora", -0.5),
        ("one", "topology", 0.0),
        ("all", "canonical", -0.5),
        ("all", "rslora", 0.0),
        ("all", "topology", 0.5),
    ],
)
def test_the_rms_slope_scales_with_the_rank_as_predicted(subject, atoms, scaling, exponent):
    """E g^2 = s^2 |G a_k|^2, summed over modules and queried atoms: s alone for one atom, s sqrt(r) for all."""
    rms = [rms_slope(subject, atoms=atoms, scaling=scaling, rank=rank) for rank in RANKS]
    fitted = np.polyfit(np.log(RANKS), np.log(rms), 1)[0]
    assert fitted == pytest.approx(exponent, abs=0.1)
