"""`job=evaluate`: the score of a model or a saved adapter without training, with or without examples in its prompt."""

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zo_runner.errors import invalid
from zo_runner.jobs.assemble import first_prompt, head, task_setup
from zo_runner.models import lora
from zo_runner.models.base_model import Base
from zo_runner.models.encoding import join
from zo_runner.records.provenance import environment
from zo_runner.records.result import EvaluateResult
from zo_runner.records.run_directory import RunDirectory
from zo_runner.seeds import fold_in
from zo_runner.tasks.base import Example
from zo_runner.training.memory import peak_memory, reset_peak_memory

BETWEEN_SHOTS = "\n\n"


def execute(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> EvaluateResult:
    """Score one split and record the result.

    Args:
        cfg: a checked configuration.
        known: its identity.
        directory: where the result is recorded.

    Raises:
        UserError: bad input, found before anything is written.
    """
    started = time.perf_counter()
    reset_peak_memory()
    on = task_setup(cfg)
    examples = getattr(on.splits, cfg.evaluate.split)
    if cfg.evaluate.shots:
        examples = with_shots(examples, on.splits.train, cfg.evaluate.shots, cfg.seeds.data)
    encoded = on.encoder.encode(examples, cfg.evaluate.split)
    model = on.base.model if cfg.evaluate.adapter is None else _adapted(on.base, Path(cfg.evaluate.adapter))
    facts = {**on.facts, "first_prompt": first_prompt(examples[0].prompt, encoded[0])}
    directory.start(OmegaConf.to_yaml(cfg, resolve=True), {**environment(), **facts})
    begun = time.perf_counter()
    score = on.evaluator(model).score(encoded, cfg.batch_size)
    now = time.perf_counter()
    result = EvaluateResult(
        **head(cfg, known, directory),
        status="done",
        adapter=cfg.evaluate.adapter,
        shots=cfg.evaluate.shots,
        split=cfg.evaluate.split,
        metric=on.scoring.metrics[0],
        metrics={cfg.evaluate.split: score.as_dict()},
        examples=len(examples),
        seconds={"eval": now - begun, "total": now - started},
        **peak_memory(*on.base.devices),
    )
    directory.finish(result)
    return result


def with_shots(examples: list[Example], train: list[Example], shots: int, seed: int) -> list[Example]:
    """The examples, each after the same `shots` solved training examples, with a blank line between any two.

    Args:
        examples: to be scored.
        train: where the shots are drawn from.
        shots: how many.
        seed: of the data stream.

    Raises:
        UserError: fewer training examples than shots, or texts without a prompt.
    """
    if shots > len(train):
        raise invalid("evaluate.shots", shots, f"at most the {len(train)} training examples")
    if not train[0].prompt:
        raise invalid("evaluate.shots", shots, "0 for a task whose texts have no prompt")
    drawn = random.Random(fold_in(seed, "shots")).sample(train, shots)
    solved = (join(example.prompt, example.options[example.correct[0]]).rstrip() for example in drawn)
    before = "".join(text + BETWEEN_SHOTS for text in solved)
    return [
        replace(
            example,
            prompt=before + example.prompt,
            null_prompt=None if example.null_prompt is None else before + example.null_prompt,
        )
        for example in examples
    ]


def _adapted(base: Base, folder: Path) -> Any:
    """The base with what a run saved: an adapter, or every parameter of the model."""
    if (folder / "adapter_config.json").is_file():
        return lora.load(base.model, folder, "evaluate.adapter")
    if (folder / "model.safetensors").is_file():
        lora.restore(base.model, folder)
        return base.model
    raise invalid("evaluate.adapter", str(folder), "a folder best/ or adapter/ that a run saved")
