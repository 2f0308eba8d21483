"""First-order methods on real language models, through PEFT and the evaluator."""

import copy

import pytest
import torch

from tests.conformance.cases import FIRST_ORDER, same_bits
from tests.estimators.conftest import random_subject
from tests.estimators.test_language_models import parts_of
from zo_runner.config.instantiate import build
from zo_runner.methods.first_order import differentiated
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.flops import FlopMeter
from zo_runner.tasks.base import Scoring

LR = {"fo_sgd": 0.05, "fo_adamw": 3e-3, "adaprelora": 1e-3}


@pytest.fixture(params=FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
def node(request):
    return request.param


def frozen_of(model):
    return {name: p for name, p in model.named_parameters() if "lora_" not in name}


@pytest.mark.parametrize("name", ["opt", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_trains_the_adapter_and_keeps_every_bit_of_the_base(node, name, dtype):
    subject = random_subject(name)
    model, groups = parts_of(node, subject.model.to(dtype))
    before = {key: p.clone() for key, p in frozen_of(model).items()}
    assert before
    evaluator = subject.evaluator(model)
    batches = evaluator.batches(subject.examples)
    method = build({**node, "lr": LR[node["name"]]})(groups)
    losses = [method.step(lambda: evaluator.loss(*batches)) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.01
    # As bits: a bfloat16 tensor seen as 16-bit integers.
    as_bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert all(torch.equal(p.view(as_bits), before[key].view(as_bits)) for key, p in frozen_of(model).items())
    for p in method.parameters:
        assert p.dtype == torch.float32
        assert p.isfinite().all()
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not evaluator.loss(*batches).requires_grad


@pytest.mark.parametrize("name", ["opt", "qwen3"])
def test_in_bfloat16_the_gradients_are_finite_float32_and_close_to_those_of_float32(node, name):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        subject = random_subject(name)
        model, groups = parts_of(node, subject.model.to(dtype))
        evaluator, seen = subject.evaluator(model), []
        batches = evaluator.batches(subject.examples)
        method = build({**node, "lr": 0.0})(groups)
        method.update = lambda step, m=method, seen=seen: seen.extend(p.grad.clone() for p in m.parameters)
        method.step(lambda evaluator=evaluator, batches=batches: evaluator.loss(*batches))
        assert all(g.dtype == torch.float32 and g.isfinite().all() for g in seen)
        found.append(torch.cat([g.flatten() for g in seen]))
    exact, rounded = found
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.98


def gradients(model, loss):
    parameters = [p for name, p in model.named_parameters() if "lora_" in name]
    with differentiated(parameters), torch.enable_grad():
        value = loss()
        return value.detach(), torch.autograd.grad(value, parameters)


@pytest.mark.parametrize("name", ["opt", "qwen3"])
def test_gradients_pass_through_the_cache_that_long_options_share(name):
    """Options of several tokens, different in number: the same gradient as whole forwards of prompt and option."""
    subject = random_subject(name)
    model, groups = parts_of(FIRST_ORDER["fo_sgd"], subject.model)
    for i, group in enumerate(groups):
        group["params"][1].copy_(
            torch.linspace(-0.1, 0.1, group["params"][1].numel()).view_as(group["params"][1]) + i / 99
        )
    options = ((7, 8, 9), (10,), (11, 12))
    examples = [Encoded(example.prefix, options[: 2 + i % 2], (i % 2,)) for i, example in enumerate(subject.examples)]
    evaluator = subject.evaluator(model)
    batches = evaluator.batches(examples)

    def whole():
        losses = []
        for example in examples:
            scores = []
            for option in example.options:
                ids = torch.tensor([[*example.prefix, *option]])
                log_probs = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[
                    0, len(example.prefix) - 1 : -1
                ]
                scores.append(log_probs[range(len(option)), option].mean())
            losses.append(-torch.stack(scores).log_softmax(0)[example.correct[0]])
        return torch.stack(losses).mean()

    (ours, found), (theirs, expected) = gradients(model, lambda: evaluator.loss(*batches)), gradients(model, whole)
    torch.testing.assert_close(ours, theirs)
    assert all(g.isfinite().all() and g.any() for g in found)
    for g, e in zip(found, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-6)


def test_evaluations_before_and_between_steps_change_nothing(node):
    """Scores are read under inference mode, in which a tensor would be lost for autograd."""
    ends = []
    for scored in (False, True):
        subject = random_subject("qwen3")
        model, groups = parts_of(node, subject.model)
        evaluator = subject.evaluator(model)
        batches = evaluator.batches(subject.examples)
        method = build({**node, "lr": LR[node["name"]]})(groups)
        for _ in range(3):
            if scored:
                evaluator.score(subject.examples)
            method.step(lambda evaluator=evaluator, batches=batches: evaluator.loss(*batches))
        ends.append([p.clone() for p in method.parameters])
    assert same_bits(*ends)


def test_the_loss_of_answers_has_a_gradient_and_that_of_generated_ones_has_none(node):
    subject = random_subject("opt")
    model, groups = parts_of(node, subject.model)
    examples = [Encoded(example.prefix, ((7, 8, 9),), (0,)) for example in subject.examples]
    evaluator = Evaluator(model, Scoring("answer", ("f1",)), pad_id=0)
    batches = evaluator.batches(examples)
    method = build({**node, "lr": LR[node["name"]]})(groups)
    losses = [method.step(lambda: evaluator.loss(*batches)) for _ in range(5)]
    assert losses[-1] < losses[0]
    with pytest.raises(RuntimeError, match=r"^The loss has no gradient"):
        method.step(lambda: torch.tensor(0.25))


def test_a_zeroth_order_step_computes_no_gradient_and_a_first_order_step_pays_for_it():
    """The operations of one forward and, where a graph is built, of its backward."""
    subject = random_subject("opt")
    model, _ = parts_of(FIRST_ORDER["fo_sgd"], copy.deepcopy(subject.model))
    base = model.get_base_model()
    meter, evaluator = FlopMeter(base), subject.evaluator(model)
    batches = evaluator.batches(subject.examples)
    evaluator.loss(*batches)
    forward = meter.total
    gradients(model, lambda: evaluator.loss(*batches))
    both = meter.total - forward
    assert 1.8 * forward < both < 2.3 * forward  # frozen weights: not three forwards
