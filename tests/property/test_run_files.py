"""Files of a run directory, broken: each is refused in one line, counts as absent, or says what it said before."""

import json
import shutil
import struct
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.cli.helpers import SMALL, configure, zo_run
from tests.property.broken import NO_FILES, accepted, altered, as_json, cases, command_accepted, put, spoiled
from zo_runner.errors import Fault
from zo_runner.jobs import dispatch
from zo_runner.methods import MeZO
from zo_runner.models import lora
from zo_runner.models.base_model import load_base
from zo_runner.records import journal
from zo_runner.records.result import read_result
from zo_runner.records.run_directory import RunDirectory
from zo_runner.reporting.figures import sweep_figures
from zo_runner.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = (*SMALL, "task.num_train=16", "task.num_dev=8", "task.num_test=8", "rank=2", "runtime.test=false")
FILES = ["result.json", "config.yaml", "meta.json", "metrics.jsonl", "journal.jsonl", "adapter", "best"]
SAVED = [f"best/{lora.WEIGHTS}", f"adapter/{lora.WEIGHTS}"]


class Made:
    """A finished run, of which a test breaks a copy."""

    def __init__(self, folder):
        self.root, self.copy = folder / "made", folder / "copy"
        self.run, self.result, _ = self.command(self.root)

    def command(self, root, **runtime):
        cfg = OmegaConf.merge(configure(*TINY), {"runtime": {"root": str(root), **runtime}})
        return dispatch.carry_out(cfg, (), wait=False)

    def broken(self, name, content):
        """The folder of a fresh copy with other content in one file."""
        shutil.rmtree(self.copy, ignore_errors=True)
        run = shutil.copytree(self.root, self.copy) / self.run.relative_to(self.root)
        put(run / name, content)
        return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("runs"))


def contents(file):
    """Other contents of a file, of JSON also such as are JSON, and of safetensors such as have a header."""
    whole = file.read_bytes() if file.is_file() else b""
    found = spoiled(whole) | NO_FILES
    if file.suffix == ".json":
        return found | altered(json.loads(whole)).map(as_json)
    if file.suffix == ".jsonl":
        rows = altered([json.loads(line) for line in whole.splitlines()])
        return found | rows.map(lambda rows: b"".join(map(as_json, rows)) if isinstance(rows, list) else as_json(rows))
    if file.suffix == ".safetensors":
        (length,) = struct.unpack("<Q", whole[:8])
        headers = altered(json.loads(whole[8 : 8 + length])).map(as_json)
        return found | headers.map(lambda header: struct.pack("<Q", len(header)) + header + whole[8 + length :])
    return found


@cases
@given(data=st.data())
def test_the_same_command_again_gives_the_same_result_or_is_refused(data, made):
    name = data.draw(st.sampled_from(["result.json", *FILES]))
    run = made.broken(name, data.draw(contents(made.run / name)))
    try:
        found = read_result(run / "result.json")
    except Fault:
        found = None
    assert found is None or found == made.result, "another result was accepted"

    def execute(cfg, known, directory):
        directory.start(OmegaConf.to_yaml(cfg, resolve=True), {})
        directory.finish(made.result)
        return made.result

    with mock.patch.object(dispatch, "_executor", return_value=execute):
        try:
            _, result, cached = made.command(made.copy)
        except Fault:
            assert found is None, "the honest result was refused"
        else:
            assert result == made.result == read_result(run / "result.json")
            assert cached == (found is not None)


@cases
@given(data=st.data())
def test_a_table_over_a_broken_run_is_made_or_refused(data, made):
    name = data.draw(st.sampled_from(["config.yaml", "result.json"]))
    run = made.broken(name, data.draw(contents(made.run / name)))
    shutil.copytree(made.run, run.with_name("s1-0123456789"))
    command_accepted(zo_run("job=table", "rank=2", "tracker=none", f"runtime.root={made.copy}"))


@cases
@given(data=st.data())
def test_curves_of_broken_metrics_have_finite_points(data, made):
    run = made.broken("metrics.jsonl", data.draw(contents(made.run / "metrics.jsonl")))
    for key in ("dev/loss", "dev/accuracy"):
        for point in sweep_figures.progress([run], key):
            assert point.mean - point.mean == 0 == point.x - point.x


@cases
@given(data=st.data())
def test_a_broken_journal_is_a_beginning_of_the_honest_one_or_refused(data, made):
    honest = list(journal.read(made.run / journal.NAME, RunDirectory(made.run).run_id))
    run, found = made.broken(journal.NAME, data.draw(contents(made.run / journal.NAME))), []
    accepted(lambda: found.extend(journal.read(run / journal.NAME, RunDirectory(run).run_id)), journal.NAME)
    assert found == honest[: len(found)]


@cases
@given(data=st.data())
def test_a_broken_checkpoint_is_the_honest_one_or_refused(data, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / checkpoint.NAME
    put(file, "missing")
    checkpoint.save(file, MeZO([torch.ones(4)], lr=0.1, eps=0.1), {"run_id": "a", "steps": 0})
    (state, tensors), found = checkpoint.load(file), []
    put(file, data.draw(contents(file)))
    if accepted(lambda: found.append(checkpoint.load(file)), file.name):
        ((state_found, tensors_found),) = found
        assert state_found == state
        assert tensors_found.keys() == tensors.keys()
        assert all(tensors_found[name].equal(tensors[name]) for name in tensors)


# Saved parameters


def base():
    return load_base("pocket_opt", embedded=True, device=torch.device("cpu"), dtype="float32").model


def require_bits(model, file):
    """Check that a model holds the tensors of a file bit for bit."""
    held = lora.named_tensors(model)
    for name, tensor in load_file(str(file)).items():
        assert held[name].shape == tensor.shape
        assert held[name].view(torch.int32).equal(tensor.view(torch.int32)), name


@pytest.fixture(scope="module", params=["adapter", "full model"])
def saved(request, tmp_path_factory):
    """A model, and the file that its parameters were saved to."""
    model, folder = base(), tmp_path_factory.mktemp("saved")
    if request.param == "adapter":
        targets = ["q_proj", "v_proj"]
        model = lora.attach_lora(model, rank=2, alpha=16, scaling="topology", target_modules=targets, seed=0)
    lora.save(model, folder)
    return model, next(folder.glob("*.safetensors"))


@cases
@given(data=st.data())
def test_broken_parameters_are_restored_bit_for_bit_or_refused(data, saved):
    model, file = saved
    whole = file.read_bytes()
    put(file, data.draw(contents(file)))
    if accepted(lambda: lora.restore(model, file.parent), str(file.parent)):
        require_bits(model, file)
    put(file, whole)


@cases
@given(data=st.data())
def test_a_broken_adapter_is_loaded_bit_for_bit_or_refused(data, made):
    name = data.draw(st.sampled_from([lora.WEIGHTS, "adapter_config.json"]))
    folder, read = made.broken(f"adapter/{name}", data.draw(contents(made.run / "adapter" / name))) / "adapter", []
    if accepted(lambda: read.append(lora.load(base(), folder, "evaluate.adapter")), "evaluate.adapter"):
        require_bits(read[0], folder / lora.WEIGHTS)


@cases
@given(data=st.data())
def test_a_test_of_broken_parameters_is_refused_and_leaves_the_result(data, made):
    name = data.draw(st.sampled_from(SAVED))
    honest = (made.run / name).read_bytes()
    content, results = data.draw(st.just(honest) | contents(made.run / name)), []
    run = made.broken(name, content)
    if accepted(lambda: results.append(made.command(made.copy, test=True)[1])):
        assert results[0].metrics["dev"] == made.result.metrics["dev"]
    else:
        assert content != honest, "honest parameters were refused"
        assert read_result(run / "result.json") == made.result
