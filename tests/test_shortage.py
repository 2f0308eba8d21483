"""Memory that runs out: one line that says at what and what takes less, whatever the library calls it."""

import errno
import resource
from pathlib import Path

import pytest
import torch

from tests.cli.helpers import SMALL, configure, read_json, the_run, zo_run
from zo_runner.errors import Fault, is_shortage
from zo_runner.jobs.out_of_memory import shortage_told
from zo_runner.models import base_model, lora
from zo_runner.models.evaluator import Evaluator

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.21 GiB is "
    "free. Including non-PyTorch memory, this process has 77.98 GiB memory in use."
)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", [
    CUDA,
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("Cannot allocate memory (os error 12)"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("std::bad_alloc"),
])  # fmt: skip
def test_a_shortage_is_known_by_whatever_name(error):
    assert is_shortage(error)


@pytest.mark.parametrize("error", [
    RuntimeError("CUDA error: device-side assert triggered"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("out of memory of what was asked"),
])  # fmt: skip
def test_another_error_is_left_as_it_is(error):
    with pytest.raises(type(error)) as caught, shortage_told(configure(), lambda: "train"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("phase", "words", "error", "line"), [
    ("train", [], CUDA, (
        "Out of memory while taking a step (CUDA out of memory. Tried to allocate 20.00 GiB). What takes less: "
        "runtime.evaluation=sequential, runtime.fold=false, runtime.device_map=auto over several accelerators, a "
        "smaller batch_size than 16, a smaller task.max_length than 64, runtime.dtype=bfloat16, a smaller model."
    )),
    ("train", ["method=fo_adamw", "runtime.dtype=bfloat16", "batch_size=1", "task.max_length=null"], MemoryError(), (
        "Out of memory while taking a step. What takes less: task.max_length=N for shorter texts, a zeroth-order "
        "method on an adapter, as method=ar1zo, a smaller model."
    )),
    ("eval", ["runtime.device_map=auto"], CUDA, (
        "Out of memory while scoring dev or test (CUDA out of memory. Tried to allocate 20.00 GiB). What takes less: "
        "a smaller task.max_length than 64, runtime.dtype=bfloat16, a smaller model."
    )),
    ("load", ["method=mezo"], MemoryError(), (
        "Out of memory while loading the model. What takes less: runtime.dtype=bfloat16, a smaller model."
    )),
    (None, ["job=probe"], MemoryError(), (
        "Out of memory in job=probe. What takes less: a smaller batch_size than 16, a smaller task.max_length than "
        "64, runtime.dtype=bfloat16, a smaller model."
    )),
])  # fmt: skip
def test_the_line_names_what_was_done_and_what_is_not_reduced_already(phase, words, error, line):
    with pytest.raises(Fault) as caught, shortage_told(configure(*words), lambda: phase):
        raise error
    assert str(caught.value) == line


# Whole runs


@pytest.fixture
def command(tmp_path):
    return *SMALL, "budget.queries=12", "budget.eval_every=6", "noise=none", f"runtime.root={tmp_path}"


def test_a_step_that_does_not_fit_fails_in_one_line_and_the_command_can_be_repeated(command, tmp_path, monkeypatch):
    """The error is the allocator's own: of 4 TiB, at 1 GiB more than this process has."""
    size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "losses", lambda *_, **__: torch.empty(2**40))
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))
        try:
            ended = zo_run(*command)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("zo-run: error: Out of memory while taking a step (")
    assert "you tried to allocate 4398046511104 bytes" in line
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert (result["status"], f"zo-run: error: {result['error']}") == ("failed", line)
    assert "Traceback" in (run / "error.txt").read_text(encoding="utf-8")
    assert zo_run(*command).code == 0
    assert read_json(run / "result.json")["status"] == "done"


def test_dev_that_does_not_fit_is_told_as_such(command, monkeypatch):
    monkeypatch.setattr(Evaluator, "score", raising(CUDA))
    ended = zo_run(*command)
    assert ended.code == 1
    assert ended.err.startswith("zo-run: error: Out of memory while scoring dev or test (CUDA out of memory. Tried")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(("words", "at"), [
    (("model=local",), "while loading the model"),
    (("job=evaluate", "model=local"), "while loading the model"),
    (("job=evaluate",), "in job=evaluate"),
    (("job=probe", "probe.ranks=[1]", "probe.gradient=false"), "in job=probe"),
])  # fmt: skip
def test_other_jobs_and_the_model_fail_in_one_line_too(words, at, command, tmp_path, monkeypatch):
    if "model=local" in words:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
        words = (*words, f"model.path={tmp_path / 'model'}")
        monkeypatch.setattr(base_model.AutoTokenizer, "from_pretrained", raising(CUDA))
    monkeypatch.setattr(Evaluator, "score", raising(CUDA))
    monkeypatch.setattr(Evaluator, "losses", raising(CUDA))
    ended = zo_run(*command, *words)
    assert (ended.code, ended.out) == (1, "")
    (line,) = [line for line in ended.err.splitlines() if "warning" not in line]
    assert line.startswith(f"zo-run: error: Out of memory {at} (CUDA out of memory. Tried to allocate 20.00 GiB). ")


def test_an_adapter_for_which_there_is_no_memory_is_not_called_a_bad_one(tmp_path, monkeypatch):
    (tmp_path / lora.WEIGHTS).touch()
    monkeypatch.setattr(lora.PeftConfig, "from_pretrained", raising(CUDA))
    with pytest.raises(torch.OutOfMemoryError):
        lora.load(None, tmp_path, "evaluate.adapter")
