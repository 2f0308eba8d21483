"""Make the pocket models: `python -m scripts.pretrain_pocket_models [--model NAME] [--out DIR]` (`make assets`).

A byte-level BPE tokenizer is built from the words of the grammar, then a real `OPTForCausalLM` and a real
`Qwen3ForCausalLM` learn the grammar's documents by next-token prediction: AdamW, linear warm-up, cosine decay, float32,
one CPU thread. The checkpoints are stored in float16, with `recipe.json` beside them. Equal source, library versions
and CPU give equal bytes; another CPU rounds differently, so there a rerun is compared by its first losses.
"""

import argparse
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from zo_runner.assets import ASSETS, asset_path
from zo_runner.tasks import pocket_grammar

# How many first losses are recorded, for the test that a rerun starts the same way.
RECORDED_STEPS: Final = 8
# The reported final loss is the mean of so many last steps, since one batch alone is noisy.
FINAL_LOSS_STEPS: Final = 100
# Enough documents that every word of the grammar occurs many times, and a size that every word fits in.
VOCABULARY_DOCUMENTS: Final = 20_000
VOCABULARY_LIMIT: Final = 4_000
MAX_POSITIONS: Final = 256
# The label that transformers' loss skips.
IGNORED_LABEL: Final = -100

# The real OPT has one token for beginning and end, and prepends it; the real Qwen3 prepends nothing.
SPECIAL_TOKENS: Final = {
    "opt": {"pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "qwen3": {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": "<|unk|>"},
}
# In the order of their ids: as in the real OPT vocabulary pad is 1, and bos and eos are 2.
SPECIAL_VOCABULARY: Final = {
    "opt": ("<s>", "<pad>", "</s>", "<unk>"),
    "qwen3": ("<|endoftext|>", "<|im_end|>", "<|unk|>"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights beside the grammar. `lr` is the peak of the schedule, in parameter units per step."""

    family: str
    ffn_size: int
    lr: float
    num_layers: int = 3
    hidden_size: int = 128
    num_heads: int = 4
    num_steps: int = 3600
    documents_per_step: int = 32
    warmup_steps: int = 200
    final_lr_fraction: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    document_seed: int = 1
    init_seed: int = 1


RECIPES: Final = {
    # OPT is the more delicate: at 3e-3 it does not learn the valence of the adjectives within these steps.
    "pocket_opt": Recipe(family="opt", ffn_size=512, lr=2e-3),
    "pocket_qwen3": Recipe(family="qwen3", ffn_size=256, lr=3e-3),
}


def fingerprint(name: str) -> str:
    """Return the sha256 of what decides the weights of asset `name`: grammar source, recipe, constants."""
    recipe = RECIPES[name]
    constants = {
        "recipe": asdict(recipe),
        "vocabulary": [VOCABULARY_DOCUMENTS, VOCABULARY_LIMIT, SPECIAL_VOCABULARY[recipe.family]],
        "special_tokens": SPECIAL_TOKENS[recipe.family],
        "max_positions": MAX_POSITIONS,
    }
    source = Path(pocket_grammar.__file__).read_text(encoding="utf-8")
    return hashlib.sha256((source + json.dumps(constants, sort_keys=True)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Build the byte-level BPE tokenizer of one family, in which every word of the grammar is one token."""
    tokenizer = Tokenizer(models.BPE())
    # The attributes are properties of a compiled class, whose type stubs do not know them as assignable.
    parts: dict[str, Any] = {
        "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "decoder": decoders.ByteLevel(),
        "post_processor": processors.ByteLevel(trim_offsets=False),
    }
    special, names = SPECIAL_VOCABULARY[recipe.family], SPECIAL_TOKENS[recipe.family]
    if "bos_token" in names:
        bos = names["bos_token"]
        parts["post_processor"] = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, special.index(bos))]
        )
    for attribute, part in parts.items():
        setattr(tokenizer, attribute, part)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_LIMIT,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = itertools.islice(pocket_grammar.pretraining_documents(recipe.document_seed), VOCABULARY_DOCUMENTS)
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_POSITIONS, padding_side="right", **names
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return the freshly initialised float32 model. Seeds the global generator inside a fork of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.init_seed)
        return _opt(recipe, tokenizer) if recipe.family == "opt" else _qwen3(recipe, tokenizer)


def _opt(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        word_embed_proj_dim=recipe.hidden_size,
        ffn_dim=recipe.ffn_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        max_position_embeddings=MAX_POSITIONS,
        dropout=0.1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return OPTForCausalLM(config)


def _qwen3(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.ffn_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        # Grouped heads, wider than hidden / heads: q_proj is not square, as in the real Qwen3-0.6B.
        num_key_value_heads=recipe.num_heads // 2,
        head_dim=2 * recipe.hidden_size // recipe.num_heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen3ForCausalLM(config)


def train(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, num_steps: int | None = None
) -> list[float]:
    """Pretrain `model` in place for the first `num_steps` steps of the recipe (default: all); return their losses."""
    # Evaluation mode: dropout would need its own random stream, and so small a model has nothing to regularise.
    model.eval()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(recipe, step))
    batches = itertools.islice(_batches(recipe, tokenizer), recipe.num_steps if num_steps is None else num_steps)
    losses = []
    progress = tqdm(batches, total=recipe.num_steps, desc=recipe.family, disable=None)
    for batch in progress:
        loss = model(**batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


def _lr_factor(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / (recipe.num_steps - recipe.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return recipe.final_lr_fraction + (1 - recipe.final_lr_fraction) * cosine


def _batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[dict[str, torch.Tensor]]:
    """Yield model inputs (documents × tokens, int64), right-padded to the longest document, each closed by eos."""
    documents = pocket_grammar.pretraining_documents(recipe.document_seed)
    while True:
        texts = [text + str(tokenizer.eos_token) for text in itertools.islice(documents, recipe.documents_per_step)]
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED_LABEL)}


def make_asset(name: str, folder: Path) -> None:
    """Pretrain asset `name` and write the checkpoint, the tokenizer and `recipe.json` into `folder`."""
    recipe = RECIPES[name]
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    losses = train(recipe, model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    last = losses[-FINAL_LOSS_STEPS:]
    record = {
        "name": name,
        "grammar_version": pocket_grammar.GRAMMAR_VERSION,
        "fingerprint": fingerprint(name),
        "weights_sha256": file_sha256(folder / "model.safetensors"),
        "num_parameters": model.num_parameters(),
        "recipe": asdict(recipe),
        "first_losses": losses[:RECORDED_STEPS],
        "final_loss": sum(last) / len(last),
        "torch": torch.__version__.split("+")[0],
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Make one pocket model or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pretrain_pocket_models", description="Make the pocket models."
    )
    parser.add_argument("--model", choices=(*ASSETS, "all"), default="all", help="which model to make")
    parser.add_argument("--out", type=Path, default=None, help="parent folder (default: the package's own folder)")
    args = parser.parse_args(argv)
    # More threads are slower at this size, and change the rounding.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in ASSETS if args.model == "all" else (args.model,):
        make_asset(name, asset_path(name) if args.out is None else args.out / name)


if __name__ == "__main__":
    main()
