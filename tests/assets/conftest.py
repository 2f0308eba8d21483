"""The pocket models and the first-order reference that their tests share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from zo_runner.assets import asset_path
from zo_runner.tasks import pocket_grammar


@dataclass(frozen=True)
class Prompts:
    """Rendered prompts of a task, right-padded. Suffixes: N examples, T tokens, W label words."""

    ids_NT: torch.Tensor
    mask_NT: torch.Tensor
    labels_N: torch.Tensor
    word_ids_W: torch.Tensor

    def scores(self, model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits (rows × label words) at the last prompt token."""
        mask = self.mask_NT[rows]
        last = mask.sum(1, keepdim=True) - 1
        output = model(input_ids=self.ids_NT[rows], attention_mask=mask, logits_to_keep=last, use_cache=False)
        return output.logits[:, 0, self.word_ids_W]

    def accuracy(self, model: torch.nn.Module) -> float:
        with torch.inference_mode():
            rows = torch.arange(len(self.labels_N))
            predicted = torch.cat([self.scores(model, chunk).argmax(1) for chunk in rows.split(100)])
        return (predicted == self.labels_N).double().mean().item()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Losses depend on the number of threads in their last bits, and one is faster at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def load_model() -> Callable[[str], PreTrainedModel]:
    return lambda name: AutoModelForCausalLM.from_pretrained(asset_path(name), dtype=torch.float32)


@pytest.fixture
def load_tokenizer() -> Callable[[str], PreTrainedTokenizerBase]:
    return lambda name: AutoTokenizer.from_pretrained(asset_path(name))


@pytest.fixture
def load_prompts(load_tokenizer: Callable[[str], PreTrainedTokenizerBase]) -> Callable[..., Prompts]:
    """Return a function (model name, task, rows) -> Prompts."""

    def load(name: str, task: str, rows: list[pocket_grammar.Row]) -> Prompts:
        tokenizer = load_tokenizer(name)
        texts = [pocket_grammar.TEMPLATES[task].format(**row) for row in rows]
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        word_ids = [
            tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in pocket_grammar.LABEL_WORDS[task]
        ]
        return Prompts(
            ids_NT=encoded["input_ids"],
            mask_NT=encoded["attention_mask"],
            labels_N=torch.tensor([row["label"] for row in rows]),
            word_ids_W=torch.tensor(word_ids),
        )

    return load
