"""Real language models in small, and prompts for them."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from tests.conformance.cases import CASES, METHODS, ZEROTH_ORDER
from zo_runner.assets import ASSETS, asset_path
from zo_runner.config.instantiate import build
from zo_runner.methods.random import generator
from zo_runner.models.base_model import load_base
from zo_runner.models.encoding import Encoded, Encoder
from zo_runner.models.evaluator import Evaluator
from zo_runner.seeds import fold_in
from zo_runner.tasks.base import Scoring


def _estimator(node):
    """What decides the slope: several methods share one estimate of the gradient and differ in what they make of it."""
    method = get_class(node["_target_"])
    settings = (node.get("atoms"), node.get("distribution", "gaussian"), node["trains"])
    return method.direction, method._query, *settings


ESTIMATED = [*(METHODS[name] for name in METHODS if name in ZEROTH_ORDER), CASES["mezo-rademacher"]]
ESTIMATORS = list({_estimator(node): node for node in reversed(ESTIMATED)}.values())


@pytest.fixture(params=ESTIMATORS, ids=lambda node: node["name"])
def node(request):
    """One method for every estimate of the gradient."""
    return request.param


CONF = Path(__file__).parents[2] / "conf"
LENGTHS = (3, 4, 5, 6, 3, 4, 5, 6)


def opt():
    # GELU: at the kinks of ReLU, OPT's own, the error of a slope falls with eps and not with its square.
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            ffn_dim=64,
            num_attention_heads=4,
            max_position_embeddings=32,
            init_std=0.15,
            activation_function="gelu",
        )
    )


def qwen3():
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=32,
            initializer_range=0.15,
        )
    )


RANDOM = {"opt": opt, "qwen3": qwen3}
EMBEDDED = [name for name in ASSETS if asset_path(name).is_dir()]


class Subject(NamedTuple):
    """A language model in eval mode, float32, and something for it to read.

    Attributes:
        model: the base model, fresh.
        examples: prompts of different lengths, with labels of two kinds, one token each.
        pad_id: fills short rows.
        rtol: how well a slope at eps = 1e-3 should agree with autograd.
    """

    model: PreTrainedModel
    examples: list[Encoded]
    pad_id: int
    rtol: float

    def evaluator(self, model):
        """Scores the examples by a model that may have an adapter."""
        return Evaluator(model, Scoring("options", ("accuracy",)), pad_id=self.pad_id)


def random_subject(name):
    """Two layers of width 32, and random tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(fold_in(0, "base"))
        model = RANDOM[name]()
    draw, size = generator(0, "prompts"), model.config.vocab_size
    ids = [torch.randint(3, size, (length,), generator=draw).tolist() for length in LENGTHS]
    examples = [Encoded(tuple(row), ((10,), (11,)), (i % 2,)) for i, row in enumerate(ids)]
    return Subject(model.requires_grad_(False).eval(), examples, pad_id=0, rtol=8e-3)


def embedded_subject(name):
    """A pocket model and its task."""
    base = load_base(name, embedded=True, device=torch.device("cpu"), dtype="float32")
    task = build(OmegaConf.load(CONF / "task" / "pocket_sentiment.yaml"))()
    examples = task.load(0).train[: len(LENGTHS)]
    encoder = Encoder(base.tokenizer, task.scoring, base.context)
    # The embedded OPT has ReLU's kinks, and slopes as small as 0.01, of which float32 rounds off a visible part.
    return Subject(base.model, encoder.encode(examples), base.pad_id, rtol=3e-2)


@pytest.fixture(params=[*RANDOM, *EMBEDDED])
def subject(request):
    return embedded_subject(request.param) if request.param in EMBEDDED else random_subject(request.param)


@pytest.fixture
def random_opt():
    return random_subject("opt")
