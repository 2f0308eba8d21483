"""Peak memory: that of the run, not of the one before it, and what it is the peak of."""

import gc
from pathlib import Path

import pytest
import torch

from zo_runner import memory
from zo_runner.memory import CUDA, RESIDENT, RESIDENT_EVER, PeakMemory

CPU = torch.device("cpu")
MIB = 2**20

resettable = pytest.mark.skipif(
    PeakMemory().what(CPU) != RESIDENT, reason="this system does not let a process reset its high-water mark"
)


def large():
    """128 MiB in one block, which the allocator gives back to the system when it is freed."""
    return torch.ones(128 * MIB // 4)


def small():
    """128 MiB in blocks so small that the allocator keeps them, in a cycle that only the collector frees."""
    blocks = [bytearray(1000) for _ in range(128 * 1000)]
    blocks.append(blocks)
    return blocks


@resettable
@pytest.mark.parametrize("allocate", [large, small])
def test_a_peak_is_seen_after_what_made_it_is_gone(allocate):
    peak = PeakMemory()
    before = peak.read(CPU)
    held = allocate()
    del held
    gc.collect()
    assert 120 * MIB < peak.read(CPU) - before < 200 * MIB


@resettable
@pytest.mark.parametrize("allocate", [large, small])
def test_the_peak_of_an_earlier_run_does_not_leak_into_a_later_one(allocate):
    first = PeakMemory()
    level = first.read(CPU)
    held = allocate()
    del held
    high = first.read(CPU)
    later = PeakMemory().read(CPU)
    assert high - later > 100 * MIB
    assert abs(later - level) < 20 * MIB


def test_where_the_mark_cannot_be_reset_the_reading_says_so(monkeypatch):
    def forbidden(self, *args, **kwargs):
        raise PermissionError(self)

    monkeypatch.setattr(Path, "write_text", forbidden)
    facts = PeakMemory().facts(CPU)
    assert facts["peak_memory_of"] == RESIDENT_EVER
    assert facts["peak_memory_bytes"] > MIB


def test_without_the_files_of_linux_the_mark_is_that_of_the_system(monkeypatch):
    def missing(self, *args, **kwargs):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "write_text", missing)
    monkeypatch.setattr(Path, "read_text", missing)
    highest = PeakMemory().read(CPU)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert highest == 1024 * PeakMemory().read(CPU)


def test_on_cuda_the_allocator_of_the_runs_own_device_is_asked_and_all_are_reset(monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device.index)
    facts = PeakMemory().facts(torch.device("cuda:1"))
    assert reset == [0, 1]
    assert facts == {"peak_memory_bytes": 101, "peak_memory_of": CUDA}


@pytest.mark.gpu
def test_on_a_gpu_the_peak_of_an_earlier_run_does_not_leak_into_a_later_one():
    device = torch.device("cuda:0")
    torch.zeros(1, device=device)
    first = PeakMemory()
    held = torch.ones(64 * MIB, dtype=torch.uint8, device=device)
    del held
    assert first.read(device) >= 64 * MIB
    assert PeakMemory().read(device) < 64 * MIB
