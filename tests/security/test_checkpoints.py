"""A folder with a model or an adapter is data: its pickles are not executed, and its code runs only on request."""

import contextlib
import json
import pickle
import shutil
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from tests.cli.helpers import SMALL, configure, zo_run
from zo_runner.assets import asset_path
from zo_runner.config import validation
from zo_runner.errors import RunWarning, UserError
from zo_runner.jobs.replay import replay
from zo_runner.models import lora
from zo_runner.models.base_model import load_base

CPU = torch.device("cpu")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return open, (str(self.proof), "w")


@pytest.fixture
def proof(tmp_path):
    return tmp_path / "proof"


@pytest.fixture
def model(tmp_path):
    """A copy of an embedded model."""
    return shutil.copytree(asset_path("pocket_opt"), tmp_path / "model")


@pytest.fixture
def adapter(tmp_path):
    """An adapter of that model, as a run saves it."""
    base = load_base("pocket_opt", embedded=True, device=CPU, dtype="float32")
    wrapped = lora.attach_lora(base.model, rank=2, alpha=2, scaling="canonical", target_modules=["q_proj"], seed=0)
    lora.save(wrapped, tmp_path / "adapter")
    return tmp_path / "adapter"


def _load(folder, **options):
    return load_base(str(folder), device=CPU, dtype="float32", **options)


def _change(file, **entries):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


def test_the_bomb_is_live(proof):
    pickle.loads(pickle.dumps(Bomb(proof))).close()
    assert proof.exists()


@pytest.mark.parametrize(("legacy", "sharded"), [(False, False), (True, True)], ids=["zip", "bare pickles in shards"])
def test_a_pickle_among_the_weights_of_a_model_is_not_executed(model, proof, legacy, sharded):
    (model / "model.safetensors").unlink()
    name = "pytorch_model-00001-of-00001.bin" if sharded else "pytorch_model.bin"
    torch.save({"a": Bomb(proof)}, model / name, _use_new_zipfile_serialization=not legacy)
    if sharded:
        index = {"metadata": {}, "weight_map": {"model.decoder.embed_tokens.weight": name}}
        (model / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UserError, match=r"\AInvalid model\.path: .*\Z"):
        _load(model)
    assert not proof.exists()


def test_safetensors_are_preferred_to_a_pickle(model, proof):
    torch.save({"a": Bomb(proof)}, model / "pytorch_model.bin")
    _load(model)
    assert not proof.exists()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside safetensors"])
def test_a_pickle_among_the_weights_of_an_adapter_is_not_read(adapter, proof, beside):
    torch.save({"a": Bomb(proof)}, adapter / "adapter_model.bin")
    base = load_base("pocket_opt", embedded=True, device=CPU, dtype="float32")
    if beside:
        lora.load(base.model, adapter, "evaluate.adapter")
    else:
        (adapter / "adapter_model.safetensors").unlink()
        with pytest.raises(UserError, match=r"\AInvalid evaluate\.adapter: "):
            lora.load(base.model, adapter, "evaluate.adapter")
    assert not proof.exists()


def test_a_pickle_where_a_run_keeps_its_full_model_is_not_read(model, proof):
    base = _load(model)
    (model / "model.safetensors").unlink()
    torch.save({"a": Bomb(proof)}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match=rf"\AInvalid {model}: "):
        lora.restore(base.model, model)
    assert not proof.exists()


def test_an_adapter_cannot_import_a_module_of_its_choice(adapter, tmp_path, proof, monkeypatch):
    (tmp_path / "evil_megatron.py").write_text(f"open({str(proof)!r}, 'w')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    base = load_base("pocket_opt", embedded=True, device=CPU, dtype="float32")
    auto = {"parent_library": "evil_megatron", "base_model_class": "X"}
    _change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil_megatron", auto_mapping=auto)
    with pytest.raises(UserError, match=r"\AInvalid evaluate\.adapter: "):
        lora.load(base.model, adapter, "evaluate.adapter")
    assert not proof.exists()


def test_an_adapter_is_of_lora_and_of_no_other_kind(adapter):
    """X-LoRA would download the adapters that its file names."""
    base = load_base("pocket_opt", embedded=True, device=CPU, dtype="float32")
    entries = {"peft_type": "XLORA", "hidden_size": 8, "adapters": {"0": "owner/name"}}
    (adapter / "adapter_config.json").write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(UserError, match=r"\AInvalid evaluate\.adapter: .*XLORA and not LoRA"):
        lora.load(base.model, adapter, "evaluate.adapter")


# Code that a checkpoint brings


@pytest.fixture
def with_code(model, proof):
    """A model of an own architecture, whose file leaves a trace when it is imported."""
    code = f"open({str(proof)!r}, 'a').close()\nfrom transformers import OPTConfig, OPTForCausalLM\n"
    code += "class EvilConfig(OPTConfig):\n    model_type = 'evil'\n"
    code += "class Evil(OPTForCausalLM):\n    config_class = EvilConfig\n"
    (model / "modeling_evil.py").write_text(code, encoding="utf-8")
    classes = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.Evil"}
    _change(model / "config.json", model_type="evil", auto_map=classes, architectures=["Evil"])
    return model


def test_code_of_a_model_is_refused_unless_it_is_asked_for(with_code, proof):
    with pytest.raises(UserError, match=r"\AInvalid model\.trust_remote_code: False\. ") as refused:
        _load(with_code)
    assert all(
        name in str(refused.value) for name in (str(with_code), "modeling_evil.Evil", "modeling_evil.EvilConfig")
    )
    assert not proof.exists()


def test_code_of_a_model_of_a_known_kind_does_not_run(with_code, proof):
    """The library takes its own class."""
    _change(with_code / "config.json", model_type="opt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(_load(with_code).model).__module__.startswith("transformers.")
    assert not proof.exists()


def test_code_of_a_tokenizer_does_not_run(model, proof):
    (model / "tok_evil.py").write_text(f"open({str(proof)!r}, 'w')", encoding="utf-8")
    _change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok_evil.T", None]}, tokenizer_class="T")
    with contextlib.suppress(UserError):
        _load(model)
    assert not proof.exists()


def test_code_that_is_asked_for_is_named_before_it_runs(with_code, proof, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (with_code / "custom_generate").mkdir()
    (with_code / "custom_generate" / "generate.py").write_text("def generate(model, **_): ...\n", encoding="utf-8")
    told = "model.trust_remote_code=true .*: custom_generate/generate.py, modeling_evil.Evil, modeling_evil.EvilConfig"
    with pytest.warns(RunWarning, match=told):
        loaded = _load(with_code, trust_remote_code=True)
    assert type(loaded.model).__name__ == "Evil"
    assert proof.exists()


def test_custom_generation_does_not_run(model, proof):
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(f"open({str(proof)!r}, 'w')", encoding="utf-8")
    _load(model)
    assert not proof.exists()


def test_the_command_line_says_it_in_one_line(with_code, proof, tmp_path):
    ended = zo_run(*SMALL, "model=local", f"model.path={with_code}", f"runtime.root={tmp_path / 'runs'}")
    assert ended.code == 1
    assert ended.err.startswith("zo-run: error: Invalid model.trust_remote_code: False. ")
    assert len(ended.err.splitlines()) == 1
    assert not proof.exists()


@pytest.mark.parametrize("revision", ["main", "3f5c25d", "3F5C25D0BC631CB57AC65913F76E22C2DFB61D62"])
def test_code_of_the_hub_is_that_of_one_commit(revision):
    with pytest.raises(UserError, match=rf"\AInvalid model\.revision: '{revision}'"):
        validation.check(configure("model.trust_remote_code=true", f"model.revision={revision}"))
    validation.check(configure(f"model.revision={revision}"))
    validation.check(configure("model.trust_remote_code=true"))
    validation.check(configure("model.trust_remote_code=true", f"model.revision={'a1' * 20}"))


def test_the_configuration_of_a_run_cannot_trust_its_model(with_code, proof, tmp_path):
    """A person who replays somebody else's run has not allowed the code of its model."""
    cfg = configure(f"model.path={with_code}", "model.embedded=false", "model.trust_remote_code=true")
    folder = tmp_path / "runs" / "t" / "m" / "x" / "s0-0123456789"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")
    with pytest.raises(UserError, match=r"\AInvalid model\.trust_remote_code: False\. "):
        replay(folder, None, device="cpu", threads=1)
    assert not proof.exists()
