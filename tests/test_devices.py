"""Where tensors are and who waits for them: the same on every kind of device that this machine has."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from accelerate import dispatch_model
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.conformance.cases import METHODS, same_bits
from zo_runner.config.instantiate import build
from zo_runner.devices import moved
from zo_runner.errors import UserError
from zo_runner.methods.queries import losses_at
from zo_runner.models import lora
from zo_runner.models.base_model import compile_forward, load_base
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.flops import FlopMeter
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.tasks.base import Scoring
from zo_runner.training.objective import Objective

CPU = torch.device("cpu")
FOUND = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
DEVICES = [torch.device(kind) for kind in ("cpu", *FOUND)]

EXAMPLES = [Encoded(tuple(range(5, 5 + n)), ((7,), (8,)), (n % 2,)) for n in (4, 9, 9, 21)]
LONGER = [Encoded(example.prefix, ((7, 9, 8), (8,)), example.correct) for example in EXAMPLES]


class Waits(TorchDispatchMode):
    """Counts the numbers that Python reads off a device: for each, everything before it has to be computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal
        self.count += getattr(func, "overloadpacket", None) in waits
        return func(*args, **(kwargs or {}))


@contextmanager
def nobody_waits(device):
    """On CUDA any wait within is an error."""
    before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else None
    try:
        if before is not None:
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        if before is not None:
            torch.cuda.set_sync_debug_mode(before)


def parts(name, trains, *, device=CPU, loss="options", **options):
    """A model, what a method may move of it, and what turns examples into its loss."""
    base = load_base(name, embedded=True, device=device, dtype="float32", **options)
    return with_groups(base, trains, loss)


def with_groups(base, trains, loss="options"):
    model, groups = base.model, lora.dense_groups(base.model)
    if trains == "adapter":
        targets = ["q_proj", "v_proj"]
        model = lora.attach_lora(base.model, rank=4, alpha=8, scaling="topology", target_modules=targets, seed=0)
        groups = lora.lora_groups(model)
    return groups, Evaluator(model, Scoring(loss, ("accuracy",)), pad_id=base.pad_id, context=base.context)


def stepped(groups, evaluator, name, examples=EXAMPLES, steps=2):
    """A method after some steps; its directions are the same on every device only where they are drawn on the CPU."""
    method = build({**METHODS[name], "lr": 1e-3, "eps": 1e-2})(groups, seed=0)
    reports = []
    for _ in range(steps):
        method.step(Objective(evaluator, evaluator.batches(examples)))
        reports.append(method.report)
    return reports


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(
    ("model", "method", "trains"),
    [("pocket_opt", "ar1zo", "adapter"), ("pocket_qwen3", "ar1zo", "adapter"), ("pocket_opt", "mezo", "full")],
)
def test_a_step_waits_for_its_losses_and_for_nothing_else(model, method, trains, device):
    """Where no texts share a row, there is no mask, and Qwen3's forward reads a flag: whether its rows are packed."""
    groups, evaluator = parts(model, trains, device=device)
    stepped(groups, evaluator, method, steps=1)  # what is set up once may wait
    with nobody_waits(device):
        batches = evaluator.batches(EXAMPLES)
        assert all(batch.seen_R1LL is not None for batch in batches)
        with torch.no_grad():
            evaluator.loss(*batches)
    with Waits() as waits:
        stepped(groups, evaluator, method, steps=1)
    assert waits.count == 2


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("path", [("batched", False), ("sequential", True), ("batched", True)])
def test_points_are_read_and_atoms_folded_without_waiting(path, device):
    groups, evaluator = parts("pocket_opt", "adapter", device=device)
    evaluator.perturbed = PerturbedModel(evaluator.model, *path)
    method = build({**METHODS["ar1zo"], "lr": 1e-3, "eps": 1e-2})(groups, seed=0)
    method.step(Objective(evaluator, evaluator.batches(EXAMPLES)))  # what is set up once may wait
    u, query = method.direction(1), Objective(evaluator, evaluator.batches(EXAMPLES))
    with nobody_waits(device), Waits() as waits:
        losses = query.losses_at([u], (1e-2, -1e-2))
    assert waits.count == 0
    assert losses.tolist() == pytest.approx(losses_at(lambda: query(), [u], (1e-2, -1e-2))[0], abs=1e-5)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_tensor_arrives_with_its_numbers(device):
    for tensor in (torch.arange(5), torch.zeros(2, 0), torch.tensor([True, False])):
        there = moved(tensor, device)
        assert there.device.type == device.type
        assert torch.equal(there.cpu(), tensor)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_atoms_are_moved_along_the_same_numbers_on_every_device(device):
    expected = stepped(*parts("pocket_opt", "adapter"), "ar1zo")
    found = stepped(*parts("pocket_opt", "adapter", device=device), "ar1zo")
    for one, other in zip(expected, found, strict=True):
        assert other.slopes == pytest.approx(one.slopes, rel=1e-2, abs=1e-3)
        assert other.loss == pytest.approx(one.loss, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "trains", "examples"), [("ar1zo", "adapter", LONGER), ("mezo", "full", EXAMPLES)], ids=["two", "one"]
)
def test_a_model_in_pieces_takes_the_same_steps(method, trains, examples):
    """Pieces that exchange tensors as those on several accelerators would; here all of them are on the CPU."""
    whole = parts("pocket_qwen3", trains)
    base = load_base("pocket_qwen3", embedded=True, device=CPU, dtype="float32", device_map="auto")
    assert set(base.devices) <= {CPU, *(torch.device(kind, 0) for kind in FOUND)}
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "cpu" for i in range(base.model.config.num_hidden_layers)}
    dispatch_model(base.model, places, force_hooks=True)
    pieces = with_groups(base, trains)
    assert stepped(*whole, method, examples) == stepped(*pieces, method, examples)
    for one, other in zip(whole[0], pieces[0], strict=True):
        assert same_bits(one["params"], other["params"])


@pytest.mark.slow
@pytest.mark.parametrize("trains", ["adapter", "full"])
def test_one_compiled_graph_serves_batches_of_any_shape_at_parameters_of_any_value(trains, monkeypatch):
    """Also where parameters are pointed at other numbers. The graph runs without code generation, which is slow."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = Qwen3Config(vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=64, head_dim=8)
    model = Qwen3ForCausalLM(config).eval().requires_grad_(False)
    compile_forward(model)
    groups, evaluator = with_groups(SimpleNamespace(model=model, pad_id=0, context=None), trains)
    evaluator.break_even = None  # with a mask and without one are two graphs
    meter, before = FlopMeter(model), counters["stats"]["unique_graphs"]
    for rows in (4, 2, 3):  # of one row torch always makes a graph of its own
        for p in (p for group in groups for p in group["params"]):
            p.data = p.data + 0.01
            p.add_(0.01)
        batches, seen = evaluator.batches(EXAMPLES[:rows]), []
        for stance in ("default", "force_eager"):
            counted = meter.total
            with torch.no_grad(), torch.compiler.set_stance(stance):
                seen.append((float(evaluator.loss(*batches)), meter.total - counted))
        assert seen[0] == pytest.approx(seen[1], rel=1e-5)
    assert counters["stats"]["unique_graphs"] == before + 1


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"^Invalid runtime\.compile: True\. Must be false on a CPU without"):
        compile_forward(load_base("pocket_opt", embedded=True, device=CPU, dtype="float32").model)
