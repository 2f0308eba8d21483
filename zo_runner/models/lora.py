"""PEFT LoRA adapters: attach, group for a method, save, load back.

The adapter is always float32, whatever the base's dtype. It requires gradients only while a first-order method takes a
step.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import PreTrainedModel

from zo_runner.errors import UserError, invalid, is_shortage
from zo_runner.methods.atoms import lora_alpha
from zo_runner.methods.random import generator

NAME = "default"
WEIGHTS = "adapter_model.safetensors"
_PAIR = (".lora_A.weight", ".lora_B.weight")


def attach_lora(
    model: PreTrainedModel, *, rank: int, alpha: float, scaling: str, target_modules: Sequence[str] | str, seed: int
) -> PeftModel:
    """Wrap `model` with LoRA: A Kaiming-uniform (U(+-1/sqrt(in)), PEFT's default), B zero, eval mode.

    A is drawn in float32 from the run's adapter stream, keyed by module name: PEFT would draw it from the global
    generator and round it to the base's dtype.

    Args:
        model: base model; it is changed in place.
        rank: stored rank r.
        alpha: LoRA's alpha.
        scaling: "canonical", "rslora" or "topology"; see `atoms.lora_alpha`.
        target_modules: module names, or "all-linear".
        seed: of the adapter stream.

    Raises:
        UserError: the names match no module.
    """
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha(scaling, alpha, rank),  # type: ignore[arg-type]  # PEFT takes floats and keeps them
        use_rslora=scaling == "rslora",
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    # PEFT initialises from the global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peft_model = get_peft_model(model, config)
        except ValueError:
            names = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
            raise UserError(
                f"Invalid adapter.target_modules: {targets!r}. "
                f"Must match linear modules of the model: {', '.join(names)}."
            ) from None
    if isinstance(config.target_modules, set):  # it is saved, and the order of a set is another one in every process
        config.target_modules = sorted(config.target_modules)
    peft_model.eval()
    peft_model.requires_grad_(False)
    for group in lora_groups(peft_model):
        a_RI, b_OR = group["params"]
        bound = 1 / math.sqrt(a_RI.shape[1])
        draw = torch.rand(a_RI.shape, generator=generator(seed, "adapter", group["name"]))
        a_RI.data = ((2 * draw - 1) * bound).to(a_RI.device)
        b_OR.data = torch.zeros_like(b_OR, dtype=torch.float32)
    return peft_model


def lora_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """One parameter group per adapted module, ready for a method.

    Returns:
        {"params": [A (rank x in), B (out x rank)], "name": module name, "scaling": s of dW = s B A, "weight": W (out x
        in), which is frozen} for every LoRA module, in the model's order. "weight" is None for a module that stores W
        transposed.

    Raises:
        ValueError: the model has no LoRA module.
    """
    groups = []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and NAME in module.lora_A:
            pair = [module.lora_A[NAME].weight, module.lora_B[NAME].weight]
            groups.append(
                {
                    "params": pair,
                    "name": name.removeprefix("base_model.model."),
                    "scaling": module.scaling[NAME],
                    "weight": None if getattr(module, "fan_in_fan_out", False) else module.get_base_layer().weight,
                }
            )
    if not groups:
        raise ValueError("Invalid model: no LoRA module. Must be wrapped by peft.get_peft_model.")
    return groups


def dense_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """All parameters of a model as one named group; tied ones once."""
    named = list(model.named_parameters())
    return [{"params": [p for _, p in named], "names": [n for n, _ in named]}]


def save(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Write an adapter in PEFT's format, or a full model in transformers' format, to an empty or absent `folder`."""
    if isinstance(model, PeftModel):
        # "auto" would ask the Hub for the base's config at every save.
        model.save_pretrained(str(folder), save_embedding_layers=False)
    else:
        model.save_pretrained(str(folder))


def named_tensors(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    """Tensors that `save` writes, under the names in its files; one of each set of tied tensors."""
    if not isinstance(model, PeftModel):
        return model.state_dict()
    return {
        f"base_model.model.{group['name']}.lora_{letter}.weight": param.data
        for group in lora_groups(model)
        for letter, param in zip("AB", group["params"], strict=True)
    }


def load(model: PreTrainedModel, folder: Path, key: str) -> PeftModel:
    """Wrap `model` with a saved adapter, in eval mode and without gradients.

    Args:
        model: base model; it is changed in place.
        folder: holds an adapter in PEFT's format.
        key: configuration key, for messages.

    Raises:
        UserError: no adapter, or one of another model.
    """
    # Without this file PEFT would take one in pickle format, or ask the Hub.
    if not (folder / WEIGHTS).is_file():
        raise invalid(key, str(folder), f"an adapter with its weights in {WEIGHTS}; pickle files are not read")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        if type(config) is not LoraConfig:  # others fetch further adapters, or build extensions
            raise ValueError(f"{config.peft_type} and not LoRA")
        loaded = PeftModel.from_pretrained(model, str(folder), config=config)
        # It leaves out what is missing or does not fit; what an adapter has beside A and B is its business.
        stored = {name: t for name, t in load_file(str(folder / WEIGHTS)).items() if name.endswith(_PAIR)}
        _require_names(named_tensors(loaded), stored)
    except Exception as error:  # whatever PEFT and what it reads with raise at a broken file
        if is_shortage(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise invalid(key, str(folder), f"an adapter of this model ({reason})") from None
    loaded.requires_grad_(False)
    return loaded.eval()


def restore(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Read a folder that `save` wrote into the model it came from, bit for bit.

    Raises:
        UserError: the folder holds no such model, or a damaged one.
    """
    held = named_tensors(model)
    try:
        stored = _stored(model, folder)
        _require_same(held, stored)
    except Exception as error:  # whatever the libraries that read it raise at a broken file
        if is_shortage(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"Invalid {folder}: {reason}. Must hold the parameters that the run saved.") from None
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(stored[name])


def _stored(model: PreTrainedModel | PeftModel, folder: Path) -> Mapping[str, torch.Tensor]:
    if isinstance(model, PeftModel):
        if not (folder / WEIGHTS).is_file():  # a pipe would be waited for
            raise ValueError(f"no file {WEIGHTS}")
        return load_file(str(folder / WEIGHTS))
    # Its own configuration and not the folder's, which could be another's. What is missing would be drawn at random.
    read: Any = type(model).from_pretrained(
        str(folder),
        config=model.config,
        dtype=model.dtype,
        output_loading_info=True,
        local_files_only=True,
        use_safetensors=True,
    )
    loaded, told = read
    if found := sorted({str(name) for names in told.values() for name in names}):
        raise ValueError(f"not all of the model fits: {found[0]}")
    stored: dict[str, torch.Tensor] = loaded.state_dict()
    return stored


def _require_same(held: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors of other names, shapes or dtypes: a copy would stretch or round them unseen."""
    _require_names(held, stored)
    for name, tensor in held.items():
        if (stored[name].shape, stored[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name} is {stored[name].dtype} of {tuple(stored[name].shape)}")


def _require_names(held: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> None:
    if odd := sorted(held.keys() ^ stored.keys()):
        raise ValueError(f"{odd[0]} is only in {'the model' if odd[0] in held else 'the file'}")
