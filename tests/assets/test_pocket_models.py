"""The pocket models behave like pretrained language models in small, and the repository can make them again."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, OPTForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from scripts import pretrain_pocket_models as pretrain
from zo_runner.assets import ASSETS, asset_path
from zo_runner.tasks import pocket_grammar

CLASSES = {"pocket_opt": OPTForCausalLM, "pocket_qwen3": Qwen3ForCausalLM}
NUM_TRAIN, NUM_DEV = 1000, 500
# A first-order reference short enough for every test run.
FIRST_ORDER_STEPS, FIRST_ORDER_BATCH, FIRST_ORDER_LR = 250, 32, 5e-3
# Another CPU rounds the recorded losses differently.
LOSS_RTOL = 1e-3


def _record(name: str) -> dict[str, Any]:
    return dict(json.loads((asset_path(name) / "recipe.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ASSETS)
def test_plain_transformers_loads_every_weight(name: str) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(asset_path(name), dtype=torch.float32, output_loading_info=True)
    assert type(model) is CLASSES[name]
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    linears = {path.rsplit(".", 1)[-1] for path, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    assert {"q_proj", "v_proj"} <= linears


@pytest.mark.parametrize("name", ASSETS)
def test_weights_are_stored_in_float16(name: str) -> None:
    weights = load_file(asset_path(name) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_the_files_are_small() -> None:
    sizes = [file.stat().st_size for name in ASSETS for file in asset_path(name).iterdir()]
    assert max(sizes) < 3 * 2**20
    assert sum(sizes) < 6e6


@pytest.mark.parametrize("name", ASSETS)
def test_the_checkpoint_belongs_to_the_current_recipe(name: str) -> None:
    record = _record(name)
    hint = "the grammar or a recipe changed: run `make assets`"
    assert record["fingerprint"] == pretrain.fingerprint(name), hint
    assert record["grammar_version"] == pocket_grammar.GRAMMAR_VERSION, hint
    assert record["weights_sha256"] == pretrain.file_sha256(asset_path(name) / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSETS)
def test_a_rerun_starts_with_the_recorded_losses(name: str) -> None:
    recipe = pretrain.RECIPES[name]
    tokenizer = pretrain.build_tokenizer(recipe)
    losses = pretrain.train(recipe, pretrain.build_model(recipe, tokenizer), tokenizer, pretrain.RECORDED_STEPS)
    assert losses == pytest.approx(_record(name)["first_losses"], rel=LOSS_RTOL)


@pytest.mark.parametrize("name", ASSETS)
@pytest.mark.parametrize(("task", "low"), [("sentiment", 0.55), ("entailment", 0.40)])
def test_zero_shot_is_above_chance_and_leaves_room(
    name: str,
    task: str,
    low: float,
    load_model: Callable[[str], PreTrainedModel],
    load_prompts: Callable[..., Any],
) -> None:
    rows = pocket_grammar.task_examples(task, 1000, seed=1)
    assert low < load_prompts(name, task, rows).accuracy(load_model(name)) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSETS)
def test_first_order_lora_solves_sentiment(
    name: str, load_model: Callable[[str], PreTrainedModel], load_prompts: Callable[..., Any]
) -> None:
    rows = pocket_grammar.task_examples("sentiment", NUM_TRAIN + NUM_DEV, seed=0)
    train, dev = (load_prompts(name, "sentiment", part) for part in (rows[:NUM_TRAIN], rows[NUM_TRAIN:]))
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
        model = get_peft_model(load_model(name), config).eval()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=FIRST_ORDER_LR, weight_decay=0.0)
    for _ in range(FIRST_ORDER_STEPS):
        batch = torch.randint(NUM_TRAIN, (FIRST_ORDER_BATCH,), generator=generator)
        loss = torch.nn.functional.cross_entropy(train.scores(model, batch), train.labels_N[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert dev.accuracy(model) > 0.95
