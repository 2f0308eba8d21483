"""What is measured on: a model, the examples that its steps see, and cheap copies of the model to change."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from zo_runner.models import lora
from zo_runner.models.base_model import Base, load_base, set_threads
from zo_runner.models.encoding import Encoded, Encoder
from zo_runner.tasks.base import Example, Scoring
from zo_runner.tasks.classification import Classification
from zo_runner.tasks.pocket_grammar import pretraining_documents
from zo_runner.training.sampler import BatchOrder

WORDS = ("terrible", "great")
SCORING = Scoring("options", ("accuracy",), single_token=True)

# As in MeZO's LoRA runs; alpha is that of conf/run.yaml.
TARGETS, ALPHA = ("q_proj", "v_proj"), 16

# Enough for every batch, few enough that they come up again and again.
EXAMPLES = 64

# Lengths of the pocket models' prompts, in tokens; those of a real model are as long as its reviews.
SHORTEST, LONGEST = 4, 64


@dataclass(frozen=True)
class Setting:
    """A model and its examples, all of two options of one token.

    Attributes:
        name: of the model.
        base: the frozen model.
        mixed: examples of mixed length, in no order.
        scored: examples as text, for the throughput of an evaluation.
        text: token ids of running text.
        threads: of torch.
    """

    name: str
    base: Base
    mixed: list[Encoded]
    scored: list[Example]
    text: list[int]
    threads: int

    def bare(self) -> PreTrainedModel:
        """The model as it is, in modules of its own: the weights are shared, so that a copy costs nothing."""
        model = self.base.model
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        return copy.deepcopy(model, shared)

    def adapted(self, rank: int, scaling: str) -> tuple[Any, list[dict[str, Any]]]:
        """A copy with a fresh adapter (B = 0: its loss is the bare model's), and the parameter groups of that."""
        model = lora.attach_lora(self.bare(), rank=rank, alpha=ALPHA, scaling=scaling, target_modules=TARGETS, seed=0)
        return model, lora.lora_groups(model)

    def of_length(self, length: int) -> list[Encoded]:
        """Examples whose prompts all have `length` tokens."""
        return [_cut(self.text, i, length, self.mixed[i]) for i in range(EXAMPLES)]


@dataclass(frozen=True)
class Work:
    """Batches, the same for everyone who asks.

    Attributes:
        setting: whose model computes them.
        examples: that they are made of.
        size: examples per batch.
    """

    setting: Setting
    examples: Sequence[Encoded]
    size: int

    @property
    def order(self) -> BatchOrder:
        """Which examples each step sees."""
        return BatchOrder(len(self.examples), self.size, seed=0)

    def batches(self, steps: range) -> list[list[Encoded]]:
        """The examples of some steps."""
        order = self.order
        return [[self.examples[i] for i in order[step]] for step in steps]


def pocket(name: str) -> Setting:
    """An embedded model on running text of its own world, cut to prompts of every length alike."""
    base = _load(name, embedded=True)
    scored = _sentences(format="grammar", grammar="sentiment", num_train=16, num_dev=256, num_test=16)
    known = _encoded(base, scored[:EXAMPLES])
    documents = pretraining_documents(3)
    text = list(base.tokenizer(" ".join(next(documents) for _ in range(400)), add_special_tokens=False)["input_ids"])
    # A stride that has no factor in common with the number of lengths visits all of them, in no order.
    lengths = [SHORTEST + 23 * i % (LONGEST - SHORTEST + 1) for i in range(EXAMPLES)]
    mixed = [_cut(text, i, length, example) for i, (length, example) in enumerate(zip(lengths, known, strict=True))]
    return Setting(name, base, mixed, scored, text, set_threads(base.model, None))


def real(folder: Path) -> Setting:
    """A real model and real film reviews: smollm2-135m/ and movie/ in `folder`."""
    base = _load(str(folder / "smollm2-135m"))
    reviews = _sentences(format="jsonl", path=str(folder / "movie"))
    text = [token for example in _encoded(base, reviews) for token in example.prefix]
    mixed = _encoded(base, reviews[:EXAMPLES])
    return Setting("smollm2-135m", base, mixed, reviews[:EXAMPLES], text, set_threads(base.model, None))


def _load(path: str, *, embedded: bool = False) -> Base:
    return load_base(path, embedded=embedded, device=torch.device("cpu"), dtype="float32")


def _sentences(**data: object) -> list[Example]:
    """The dev examples of a task: is a text bad or good?"""
    task = Classification(
        template="{text} It was",
        label_words=list(WORDS),
        label_field="label",
        labels=None,
        null_template=None,
        calibrate=False,
        prepare=None,
        loss="options",
        single_token=True,
        max_length=None,
        **data,
    )
    return task.load(0).dev


def _encoded(base: Base, examples: Sequence[Example]) -> list[Encoded]:
    return Encoder(base.tokenizer, SCORING, base.context).encode(examples, "dev")


def _cut(text: Sequence[int], number: int, length: int, like: Encoded) -> Encoded:
    """A piece of running text before the options of another example; every number begins elsewhere."""
    start = number * 37 % (len(text) - length)
    return Encoded(tuple(text[start : start + length]), like.options, like.correct)
