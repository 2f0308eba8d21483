"""The base model, its tokenizer, and the device and dtype they live on."""

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

# Without it a checkpoint in pickle format starts a background thread that asks the Hub for a converted copy and may
# load another revision than the pinned one.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from zo_runner.assets import ASSETS, asset_path
from zo_runner.errors import RunWarning, UserError, invalid, is_shortage, one_of
from zo_runner.tasks.files import content

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MEZO_BOS = "<s>"

# Above this many parameters a second thread pays on a CPU; below it the threads wait for each other (five times
# slower at a million parameters on two cores).
THREADED_FROM_PARAMETERS = 20_000_000


@dataclass(frozen=True)
class Base:
    """A loaded base model in eval mode, without gradients.

    Attributes:
        model: the causal language model.
        tokenizer: its tokenizer, padding on the right.
        revision: commit of the checkpoint on the Hub; of a folder or an embedded model, a digest of its files.
        first_token: first token of prompts in place of the tokenizer's BOS; None to keep that.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str | None
    first_token: int | None = None

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return next(self.model.get_input_embeddings().parameters()).device

    @property
    def devices(self) -> list[torch.device]:
        """Devices of the model, that of the inputs first."""
        return list(dict.fromkeys([self.device, *(p.device for p in self.model.parameters())]))

    @property
    def attention(self) -> str:
        """The implementation of attention that transformers runs."""
        return str(self.model.config._attn_implementation)

    @property
    def pad_id(self) -> int:
        """Token id that fills short rows; any would do, since no prompt can see it."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0)

    @property
    def context(self) -> int | None:
        """The most tokens that the model can read, None if its configuration states no limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if limit is None else int(limit)


def pick_device(name: str) -> torch.device:
    """Device of that name; `auto` is the first CUDA device, else Apple's, else the CPU.

    Raises:
        UserError: a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises, by kind of device
        if is_shortage(error):
            raise
        raise invalid("runtime.device", name, "auto, cpu, or an accelerator of this machine such as cuda:0") from None
    return device


def set_threads(model: PreTrainedModel, threads: int | None) -> int:
    """Set torch's CPU threads: `threads`, or by the size of the model, and return them."""
    if threads is None:
        many = model.num_parameters() >= THREADED_FROM_PARAMETERS
        threads = (os.cpu_count() or 1) if many else 1
    torch.set_num_threads(threads)
    return threads


def compile_forward(model: PreTrainedModel) -> None:
    """Fuse the forward of the model's layers by torch.compile, in place, for batches of any size and length.

    The first batches take a minute or more. Adapters may be attached afterwards; numbers change by rounding. Hooks
    at the body and at the output layer stay outside: their counts would tie the graph to one shape.

    Raises:
        UserError: a model on a CPU, and no C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if model.device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise invalid("runtime.compile", True, "false on a CPU without a C++ compiler (g++)")
    body = model.get_decoder()
    body.forward = torch.compile(body.forward, dynamic=True)


def load_base(
    path: str,
    *,
    revision: str | None = None,
    embedded: bool = False,
    bos: str = "native",
    trust_remote_code: bool = False,
    device: torch.device,
    dtype: str,
    device_map: str | None = None,
) -> Base:
    """Load a checkpoint and its tokenizer.

    Args:
        path: name of an embedded model, a folder, or an id on the Hugging Face Hub.
        revision: commit on the Hub.
        embedded: `path` names a model that the package carries.
        bos: beginning of a prompt: "native" leaves it to the tokenizer; "mezo" is the token <s>, with which MeZO's
            published runs began the prompts of OPT (whose tokenizer begins with </s>).
        trust_remote_code: run code that the checkpoint brings. Off unless a person says otherwise.
        device: where to put the model.
        dtype: of the weights; a checkpoint's own dtype is never taken silently.
        device_map: None, or "auto" to spread the layers over all accelerators in place of `device`.

    Raises:
        UserError: nothing there, not a causal language model, or no way to reach it.
    """
    if embedded and path not in ASSETS:
        raise invalid("model.path", path, one_of(ASSETS))
    source = str(asset_path(path)) if embedded else path
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    code = _code_named_in(Path(source))
    if trust_remote_code:
        what = code or ("none" if Path(source).is_dir() else "whatever it brings")
        warnings.warn(f"model.trust_remote_code=true runs code of {path}: {what}", RunWarning, stacklevel=2)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype], device_map=device_map, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UnpicklingError) as error:
        if is_shortage(error):
            raise
        if code and not trust_remote_code:
            allowed = f"true to run the code that {path} brings ({code}), or model.path another model"
            raise invalid("model.trust_remote_code", False, allowed) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Invalid model.path: {path!r} ({reason}). "
            "Must be a folder or Hub id of a causal language model that can be read."
        ) from None
    first = None
    if bos == "mezo":
        first = tokenizer.get_vocab().get(MEZO_BOS)
        if first is None or tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
            raise invalid("model.bos", bos, f"native for this model: its tokenizer has no BOS, or no token {MEZO_BOS}")
    model.requires_grad_(False)
    model.eval()
    if device_map is None:
        torch.nn.Module.to(model, device)  # transformers types its own `to` wrongly
    elif any(p.is_meta for p in model.parameters()):  # on a disk, where it cannot be perturbed
        raise invalid("runtime.device_map", device_map, "null: the model is larger than the memory of all devices")
    tokenizer.padding_side = "right"
    folder = Path(source)
    revision = content(folder) if folder.is_dir() else getattr(model.config, "_commit_hash", None)
    return Base(model, tokenizer, revision, first)


def _code_named_in(folder: Path) -> str:
    """Code in a checkpoint's folder that the library would run if allowed: classes, and `generate`; "" if none."""
    generate = "custom_generate/generate.py"
    named = {generate} if (folder / generate).is_file() else set()
    for name in ("config.json", "tokenizer_config.json"):
        try:
            classes = json.loads((folder / name).read_text(encoding="utf-8"))["auto_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # no such file or entry; what is malformed is refused when it is loaded
        for given in classes:
            named |= {str(each) for each in (given if isinstance(given, list) else [given]) if each}
    return ", ".join(sorted(named))
