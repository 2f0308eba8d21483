"""First-order runs from the command line, and that zeroth-order runs build no graph."""

import json

import pytest
import torch

from tests.cli.helpers import SMALL, read_json, read_jsonl, the_run, zo_run
from tests.conformance.cases import FIRST_ORDER
from zo_runner.jobs.assemble import Parts
from zo_runner.models.evaluator import Evaluator


@pytest.fixture
def watched(monkeypatch):
    """What autograd saved, the training losses, and the frozen weights before and after training."""
    found = {"saved": 0, "losses": [], "model": None}
    loss, init = Evaluator.loss, Parts.__init__

    def recording(self, *batches):
        found["losses"].append(loss(self, *batches))
        return found["losses"][-1]

    def made(self, *arguments, **named):
        init(self, *arguments, **named)
        found["model"] = self.model
        found["before"] = {k: p.clone() for k, p in self.model.named_parameters() if "lora_" not in k}
        found["lora"] = {k: p.clone() for k, p in self.model.named_parameters() if "lora_" in k}

    def pack(tensor):
        found["saved"] += 1
        return tensor

    monkeypatch.setattr(Evaluator, "loss", recording)
    monkeypatch.setattr(Parts, "__init__", made)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def train(tmp_path, *words):
    ended = zo_run(*SMALL, *words, f"runtime.root={tmp_path}")
    assert ended.code == 0, ended.err
    run = the_run(tmp_path)
    return read_json(run / "result.json"), run, ended


@pytest.mark.parametrize("method", ["ar1zo", "mezo"])
def test_a_zeroth_order_run_saves_nothing_for_a_backward(method, watched, tmp_path):
    words = ("method.lr=auto", "calibration.probes=2", "budget.queries=60", "runtime.evaluation=sequential")
    train(tmp_path, f"method={method}", *words, "runtime.fold=false")
    assert len(watched["losses"]) > 60
    assert not any(value.requires_grad or value.grad_fn for value in watched["losses"])
    assert not any(p.requires_grad or p.grad is not None for p in watched["model"].parameters())
    assert watched["saved"] == 0


@pytest.mark.parametrize(("method", "dtype"), [*((m, "float32") for m in FIRST_ORDER), ("fo_adamw", "bfloat16")])
def test_a_first_order_run_charges_three_queries_a_step_and_leaves_the_base_alone(method, dtype, watched, tmp_path):
    result, run, _ = train(tmp_path, f"method={method}", f"runtime.dtype={dtype}", "budget.queries=20")
    assert watched["saved"] > 0
    after = dict(watched["model"].named_parameters())
    for key, before in watched["before"].items():
        assert torch.equal(after[key].contiguous().view(torch.uint8), before.contiguous().view(torch.uint8)), key
    assert any(not torch.equal(after[key], before) for key, before in watched["lora"].items())
    assert all(after[key].dtype == torch.float32 and after[key].isfinite().all() for key in watched["lora"])
    assert not any(p.requires_grad or p.grad is not None for p in after.values())
    assert result["status"] == "done"
    assert result["queries"] == {"train": 18, "calibration": 0, "noise": 0}
    assert [bool(value.requires_grad) for value in watched["losses"]] == [True] * 6
    assert result["examples"] == 18 * 4
    assert (result["eps"], result["signal"], result["calibration"], result["coverage"]) == (None, {}, None, None)
    journal = read_jsonl(run / "journal.jsonl")
    assert [row["slopes"] for row in journal] == [[]] * 6
    events = read_jsonl(run / "metrics.jsonl")
    assert any("train/loss" in event for event in events)
    assert "zo/" not in json.dumps(events)


def test_its_operations_are_those_of_two_forwards_and_not_of_three(tmp_path):
    """With frozen weights the backward is one more forward; queries are charged as where everything is trained."""
    per_token = {}
    for method in ("lora_zo", "fo_sgd"):
        result, _, _ = train(tmp_path / method, f"method={method}", "budget.queries=12")
        per_token[method] = result["flops"] / result["tokens"]
    assert 3 * per_token["fo_sgd"] == pytest.approx(2 * per_token["lora_zo"], rel=0.1)


def test_a_loss_without_a_gradient_is_refused(tmp_path):
    rows = [{"question": "q", "context": "c", "answers": ["a"]}] * 8
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("task=jsonl_generation", f"task.path={folder}", "task.loss=f1", "tracker=none", "batch_size=4")
    ended = zo_run("method=fo_adamw", *words, f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 1
    told = "Invalid method: 'fo_adamw'. Must be a zeroth-order method for task.loss=f1, which has no gradient."
    assert ended.err == f"zo-run: error: {told}\n"
