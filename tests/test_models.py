"""The base model: the dtype that was asked for, a device that exists, no more threads than pay."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from zo_runner.assets import ASSETS, asset_path
from zo_runner.errors import UserError
from zo_runner.models.base_model import THREADED_FROM_PARAMETERS, load_base, pick_device, set_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_put_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ASSETS)
def test_the_dtype_is_the_one_asked_for_and_not_the_checkpoints(name, dtype):
    assert json.loads((asset_path(name) / "config.json").read_text(encoding="utf-8"))["dtype"] == "float16"
    base = load_base(name, embedded=True, device=CPU, dtype=dtype)
    assert {p.dtype for p in base.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("name", ASSETS)
def test_a_base_is_in_eval_mode_frozen_and_padded_on_the_right(name):
    base = load_base(name, embedded=True, device=CPU, dtype="float32")
    assert not any(module.training for module in base.model.modules())
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.tokenizer.padding_side == "right"
    assert base.device == CPU
    assert base.revision is not None
    assert base.revision.startswith("sha256:")
    assert 0 <= base.pad_id < base.model.config.vocab_size


def test_a_local_folder_loads_as_the_embedded_model_does():
    local = load_base(str(asset_path("pocket_opt")), device=CPU, dtype="float32")
    embedded = load_base("pocket_opt", embedded=True, device=CPU, dtype="float32")
    pairs = zip(local.model.parameters(), embedded.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_of_a_checkpoint_is_another_revision(file, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(asset_path("pocket_opt"), folder)

    def revision(path, **options):
        return load_base(str(path), device=CPU, dtype="float32", **options).revision

    before = revision(folder)
    assert before == revision("pocket_opt", embedded=True) != revision("pocket_qwen3", embedded=True)
    content = (folder / file).read_bytes()
    # The last byte of the weights; white space after the last brace of a JSON file.
    changed = content[:-1] + bytes([content[-1] ^ 1]) if file.endswith("safetensors") else content + b" "
    (folder / file).write_bytes(changed)
    assert revision(folder) != before


@pytest.mark.parametrize("damage", ["config", "weights", "tokenizer"])
def test_a_checkpoint_that_cannot_be_read_is_refused(damage, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(asset_path("pocket_opt"), folder)
    if damage == "config":
        (folder / "config.json").write_text('{"model_type": "nothing"}', encoding="utf-8")
    elif damage == "weights":
        (folder / "model.safetensors").write_bytes(b"torn")
    else:
        for file in folder.glob("tokenizer*"):
            file.write_text("{", encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        load_base(str(folder), device=CPU, dtype="float32")
    assert str(refusal.value).startswith(f"Invalid model.path: {str(folder)!r} (")
    assert "\n" not in str(refusal.value)


def test_a_hub_id_that_is_not_in_the_cache_is_refused_offline():
    with pytest.raises(UserError, match=r"^Invalid model\.path: 'nobody/nothing' \("):
        load_base("nobody/nothing", device=CPU, dtype="float32")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x", ""])
def test_a_device_that_this_machine_lacks_is_refused(name):
    with pytest.raises(UserError) as refusal:
        pick_device(name)
    assert str(refusal.value).startswith(f"Invalid runtime.device: {name!r}. Must be auto, cpu, or an accelerator")


def test_a_device_is_the_one_named_or_the_best_there_is(monkeypatch):
    assert pick_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == CPU


@pytest.mark.parametrize(
    ("parameters", "asked", "given"),
    [
        (THREADED_FROM_PARAMETERS - 1, None, 1),
        (THREADED_FROM_PARAMETERS, None, os.cpu_count()),
        (10, 2, 2),
        (THREADED_FROM_PARAMETERS, 1, 1),
    ],
)
def test_threads_follow_from_the_size_of_the_model_unless_asked_for(parameters, asked, given):
    model = SimpleNamespace(num_parameters=lambda: parameters)
    assert set_threads(model, asked) == given
    assert torch.get_num_threads() == given
