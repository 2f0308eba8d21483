"""The parameters that a run saved, broken: they are refused, or read bit for bit as they stand in the file."""

import json
import shutil
import struct
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from tests.faults.fuzz_config import configuration
from tests.faults.fuzz_kinds import Kind, accepted, altered, dumped, flipped, spoiled
from tests.faults.fuzz_runs import ODD, TINY, Content, as_json, in_place, put
from zo_runner.jobs import dispatch
from zo_runner.models import lora
from zo_runner.models.base_model import lend_base
from zo_runner.records.result import RunResult, TrainResult, read_result


def kinds(folder: Path) -> Iterator[Kind]:
    """Adapters and full models, each way they are read back.

    Args:
        folder: where the runs are made.
    """
    folder.mkdir()
    cfg = configuration(*TINY, f"runtime.root={folder / 'untested'}", "runtime.test=false")
    run, first, _ = dispatch.carry_out(cfg, (), wait=False)
    file = run / "best" / lora.WEIGHTS
    tensors = _tensors(file.read_bytes())
    yield Kind("saved, best/ read back", tensors, partial(in_place, file, _restored))
    file = run / "adapter" / lora.WEIGHTS
    yield Kind("saved, adapter/ for job=evaluate", tensors, partial(in_place, file, _loaded), 0.5)
    file = run / "adapter" / "adapter_config.json"
    whole = file.read_bytes()
    texts = st.one_of(spoiled(whole), altered(json.loads(whole)).map(as_json), st.sampled_from(ODD))
    yield Kind("saved, adapter_config.json", texts, partial(in_place, file, _loaded), 0.5)
    files = st.sampled_from([f"{name}/{lora.WEIGHTS}" for name in ("best", "adapter")])
    yield Kind("saved, tested later", st.tuples(files, tensors), partial(_read_later, cfg, run, first), 0.1)
    cfg = configuration(*TINY, "method=mezo", f"runtime.root={folder / 'full'}")
    run, _, _ = dispatch.carry_out(cfg, (), wait=False)
    file = run / "best" / "model.safetensors"
    yield Kind("saved, a full model", _tensors(file.read_bytes()), partial(in_place, file, _full), 0.1)


def _tensors(whole: bytes) -> st.SearchStrategy[Content]:
    return st.one_of(flipped(whole), _headers(whole), spoiled(whole), st.sampled_from(ODD))


@st.composite
def _headers(draw: DrawFn, whole: bytes) -> bytes:
    """A safetensors file with other facts in its header, and the length of it put right."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = dumped(draw(altered(json.loads(whole[8 : 8 + length])))).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length :]


@cache
def _adapted() -> Any:
    targets = ["q_proj", "v_proj"]
    return lora.attach_lora(_lent(), rank=2, alpha=16, scaling="topology", target_modules=targets, seed=0)


def _lent() -> Any:
    return lend_base("pocket_opt", embedded=True, device=torch.device("cpu"), dtype="float32").model


def _restored(file: Path, content: Content) -> bool:
    model = _adapted()
    return accepted(lambda: lora.restore(model, file.parent), str(file.parent)) and _is_in(_pairs(model), file)


def _loaded(file: Path, content: Content) -> bool:
    read: list[Any] = []
    if not accepted(lambda: read.append(lora.load(_lent(), file.parent, "evaluate.adapter")), "evaluate.adapter"):
        return False
    return _is_in(_pairs(read[0]), file.parent / lora.WEIGHTS)


def _full(file: Path, content: Content) -> bool:
    model = _lent()
    if not accepted(lambda: lora.restore(model, file.parent), str(file.parent)):
        return False
    stored = load_file(str(file))
    return _is_in({name: tensor for name, tensor in model.state_dict().items() if name in stored}, file)


def _pairs(model: Any) -> dict[str, torch.Tensor]:
    return {
        f"base_model.model.{group['name']}.lora_{letter}.weight": param.data
        for group in lora.lora_groups(model)
        for letter, param in zip("AB", group["params"], strict=True)
    }


def _is_in(held: dict[str, torch.Tensor], file: Path) -> bool:
    stored = load_file(str(file))
    assert held.keys() == stored.keys()
    for name, tensor in stored.items():
        assert _bits(held[name]) == _bits(tensor), f"{name} is not what stands in the file"
    return True


def _bits(tensor: torch.Tensor) -> tuple[torch.Size, list[int]]:
    return tensor.shape, tensor.contiguous().view(torch.int32).flatten().tolist()


def _read_later(cfg: DictConfig, run: Path, first: RunResult, case: tuple[str, Content]) -> bool:
    name, content = case
    same = content == (run / name).read_bytes()
    aside = run.parent / "aside"
    shutil.copytree(run, aside)
    put(run / name, content)
    cfg = OmegaConf.merge(cfg, {"runtime": {"test": True}})  # type: ignore[assignment]  # a DictConfig, as cfg is
    made: list[RunResult] = []
    assert isinstance(first, TrainResult)
    try:
        read = accepted(lambda: made.append(dispatch.carry_out(cfg, (), wait=False)[1]))
        for result in made:
            assert isinstance(result, TrainResult)
            assert result.metrics["dev"] == first.metrics["dev"]
        assert read or not same
        assert read or read_result(run / "result.json") == first, "what was refused has changed the result"
        return read
    finally:
        shutil.rmtree(run)
        shutil.move(aside, run)
