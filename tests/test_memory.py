"""Peak memory of a run and memory of a step."""

from types import SimpleNamespace

import pytest
import torch

from tests.cli.helpers import read_json, the_run, zo_run
from zo_runner.models.base_model import load_base
from zo_runner.training import memory
from zo_runner.training.memory import CUDA, RESIDENT, StepMemory, TensorMemory, peak_memory, reset_peak_memory

CPU = torch.device("cpu")
MIB = 2**20


def test_on_a_cpu_the_peak_is_that_of_the_process_and_says_so(monkeypatch):
    monkeypatch.setattr(memory.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5))
    for platform, peak in (("linux", 5 * 1024), ("darwin", 5)):
        monkeypatch.setattr(memory.sys, "platform", platform)
        assert peak_memory(CPU) == {"peak_memory_bytes": peak, "peak_memory_of": RESIDENT}


def test_on_cuda_the_allocator_of_the_runs_own_device_is_asked_and_all_are_reset(monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device.index)
    reset_peak_memory()
    facts = peak_memory(torch.device("cuda:1"))
    assert reset == [0, 1]
    assert facts == {"peak_memory_bytes": 101, "peak_memory_of": CUDA}


@pytest.mark.gpu
def test_on_a_gpu_the_peak_of_an_earlier_run_does_not_leak_into_a_later_one():
    device = torch.device("cuda:0")
    torch.zeros(1, device=device)
    reset_peak_memory()
    held = torch.ones(64 * MIB, dtype=torch.uint8, device=device)
    del held
    assert peak_memory(device)["peak_memory_bytes"] >= 64 * MIB
    reset_peak_memory()
    assert peak_memory(device)["peak_memory_bytes"] < 64 * MIB


def test_every_tensor_counts_from_its_making_to_its_end_and_views_do_not():
    memory, before = TensorMemory(), torch.ones(1000)
    with memory:
        made = torch.zeros(1000)
        view = made[::2]
        made.add_(1)
        before.mul_(2)
        gone = made + before
        del gone
    assert (memory.live, memory.peak) == (4000, 8000)
    del made
    assert memory.live == 4000
    del view
    assert memory.live == 0


def test_a_graph_keeps_what_its_backward_needs():
    memory, x, w = TensorMemory(), torch.ones(10, 10, requires_grad=True), torch.ones(10, 10)
    with memory:
        loss = (x @ w).exp().sum()  # exp keeps its result, the product keeps w and x, which were there
    assert memory.live == 400 + 4
    with memory:
        loss.backward()
    assert memory.live == 400 + 4  # the gradient now, and the loss
    with memory, torch.no_grad():
        assert (x @ w).exp().sum() > 0
    assert memory.live == 400 + 4


def test_a_step_counts_with_the_state_that_it_found_and_a_forward_without():
    memory, kept = StepMemory(), []
    with memory.of_step():
        kept.append(torch.zeros(100))  # state
    with memory.of_inference():
        torch.zeros(50)
    with memory.of_step():
        kept.append(torch.zeros(10))
        torch.zeros(20)
    model = torch.nn.Linear(5, 5)
    model.tied = model.weight
    assert memory.facts(model) == {"model": 120, "inference": 200, "step": 400 + 40 + 80}


@pytest.mark.parametrize("model", ["pocket_opt", "pocket_qwen3"])
@pytest.mark.parametrize("method", ["ar1zo", "naive_atom", "lora_zo"])
def test_two_queries_of_an_adapter_take_what_inference_does_and_two_copies_of_what_is_moved(model, method, tmp_path):
    words = ("budget=smoke", "rank=16", "tracker=none", "task.num_dev=8", "task.num_test=8", "runtime.fold=false")
    words = (
        *words,
        "runtime.measure_memory=true",
        "runtime.evaluation=sequential",
    )  # in one forward, two points hold the activations of both
    ended = zo_run(f"model={model}", f"method={method}", *words, f"runtime.root={tmp_path}")
    assert ended.code == 0, ended.err
    result = read_json(the_run(tmp_path) / "result.json")
    base, memory = model_bytes(model), result["memory_bytes"]
    moved = memory["model"] - base
    assert moved > 0.01 * base
    if method != "lora_zo":
        moved /= 16
        assert memory["step"] - memory["inference"] < 0.02 * (memory["model"] + memory["inference"])
    # The perturbed numbers, their copy, and what is drawn.
    assert 0 <= memory["step"] - memory["inference"] < 2.1 * moved + 1000


def model_bytes(name):
    return sum(p.numel() * 4 for p in load_base(name, embedded=True, device=CPU, dtype="float32").model.parameters())
