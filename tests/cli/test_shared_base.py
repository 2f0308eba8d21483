"""Jobs of one process share a base, and each of them ends as it would have alone."""

from unittest import mock

import pytest
import torch

from tests.cli.helpers import SMALL, read_journal, read_json, the_run, zo_run
from tests.cli.test_endings import break_at
from zo_runner.models import base_model

TINY = (*SMALL, "budget.queries=6", "budget.eval_every=6", "noise=none")
CLOCKED = ("seconds", "peak_memory_bytes", "peak_memory_of", "checksum")

# What a job can do to a base: move its weights, or wrap its modules; and how it can end.
TRAINED = ("method=mezo", "method.lr=1e-3")
WRAPPED = ("method=ar1zo", "rank=4")
CASES = {
    "trained": (TRAINED, None, 0),
    "trained by gradients": (("method=fo_sgd", "method.trains=full"), None, 0),
    "diverged": (("method=mezo", "method.lr=1e30"), None, 0),
    "interrupted": (TRAINED, KeyboardInterrupt(), 130),
    "failed": (TRAINED, RuntimeError("the disk has melted"), 1),
    "wrapped": (WRAPPED, None, 0),
    "wrapped and interrupted": (WRAPPED, KeyboardInterrupt(), 130),
}


@pytest.fixture
def loads():
    """The calls of `load_base`; the first job loads."""
    base_model._lent = None
    with mock.patch.object(base_model, "load_base", wraps=base_model.load_base) as load_base:
        yield load_base.mock_calls


def made(root, *words):
    """All that a run leaves behind but for what clocks and the process's memory say."""
    ended = zo_run(*TINY, *words, "seed=1", f"runtime.root={root}")
    assert ended.code == 0, ended.err
    run = the_run(root)
    result = read_json(run / "result.json")
    saved = {file.relative_to(run): file.read_bytes() for file in run.rglob("*.safetensors")}
    return {k: v for k, v in result.items() if k not in CLOCKED}, read_journal(run), saved


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs that found nothing loaded."""
    runs = []
    for words in (WRAPPED, TRAINED):
        base_model._lent = None
        runs.append(made(tmp_path_factory.mktemp("alone"), *words))
    return runs


@pytest.mark.parametrize("case", CASES)
def test_whatever_a_job_did_to_the_base_the_next_ends_as_it_would_have_alone(case, alone, loads, tmp_path, monkeypatch):
    words, error, code = CASES[case]
    with monkeypatch.context() as patch:
        if error is not None:
            break_at(patch, 2, error)
        assert zo_run(*TINY, *words, f"runtime.root={tmp_path / 'before'}").code == code
    assert made(tmp_path / "after", *WRAPPED) == alone[0]
    assert len(loads) == (1 if words == WRAPPED else 2)


def test_a_base_that_was_wrapped_is_trained_as_it_would_have_been_alone(alone, loads, tmp_path):
    made(tmp_path / "before", *WRAPPED)
    assert made(tmp_path / "after", *TRAINED) == alone[1]
    assert len(loads) == 1


def lend(name="pocket_opt", dtype="float32"):
    return base_model.lend_base(name, embedded=True, device=torch.device("cpu"), dtype=dtype).model


def test_only_the_same_base_is_lent_again(loads):
    wanted = ({}, {}, {"name": "pocket_qwen3"}, {}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"})
    counts = [lend(**options) and len(loads) for options in wanted]
    assert counts == [1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jobs_share_weights_and_a_change_of_one_bit_is_seen(dtype, loads):
    first, second = lend(dtype=dtype), lend(dtype=dtype)
    assert not set(first.modules()) & set(second.modules())
    assert list(map(id, first.parameters())) == list(map(id, second.parameters()))
    weight = next(first.parameters())
    weight.view(base_model._WORDS[weight.element_size()])[3, 5] ^= 1
    assert not torch.equal(weight, next(lend(dtype=dtype).parameters()))
    assert len(loads) == 2
