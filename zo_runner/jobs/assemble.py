"""assemble(): build every part of a run from its configuration. The only place where the parts meet."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from zo_runner.config.derived import queries_slopes
from zo_runner.config.instantiate import build
from zo_runner.config.schema import AUTO
from zo_runner.errors import UserError, invalid
from zo_runner.jobs.out_of_memory import shortage_told
from zo_runner.jobs.preflight import require_budget, require_paths
from zo_runner.methods.base import Method
from zo_runner.models import lora
from zo_runner.models.base_model import Base, compile_forward, load_base, pick_device, set_threads
from zo_runner.models.encoding import Encoded, Encoder
from zo_runner.models.evaluator import Evaluator
from zo_runner.models.perturbed_model import PerturbedModel
from zo_runner.records.run_directory import RunDirectory
from zo_runner.records.tracking import NoTracker, Tracker, WandbTracker
from zo_runner.seeds import fold_in
from zo_runner.tasks.base import Scoring, Splits, Task
from zo_runner.training.sampler import BatchOrder


@dataclass
class TaskSetup:
    """A model and a task's examples: what every job stands on.

    Attributes:
        base: base model and tokenizer.
        scoring: how examples become a loss and a score.
        splits: the task's examples, as text.
        encoder: turns them into token ids.
        facts: what meta.json says of all this.
    """

    base: Base
    scoring: Scoring
    splits: Splits
    encoder: Encoder
    facts: dict[str, Any]

    def evaluator(self, model: Any, runtime: DictConfig | None = None) -> Evaluator:
        """Scores the task's examples by `model`: the base, or an adapter on it; with `runtime` also around it.

        Not around a compiled one, which would be compiled again for the hooks of every query.
        """
        perturbed = None
        if runtime is not None and not runtime.compile:
            perturbed = PerturbedModel(model, runtime.evaluation, runtime.fold)
        return Evaluator(
            model,
            self.scoring,
            pad_id=self.base.pad_id,
            context=self.base.context,
            tokenizer=self.base.tokenizer,
            perturbed=perturbed,
        )


@dataclass
class Parts:
    """Everything a run is made of, before it has left a trace on disk.

    Attributes:
        base: base model and tokenizer.
        model: the model that is trained: the base itself, or PEFT's wrapper around it.
        method: the optimiser; where lr or eps are to be measured, it has its fall-backs until then.
        calibration_method: the same method on the same parameters with directions of its own; None for a method that
            has no directions.
        evaluator: turns examples into losses.
        train: training examples.
        dev: selection examples.
        test: examples that are read once.
        order: which training examples each step sees.
        probed: which of them each direction of the calibration sees.
        step_queries: queries of the first step, the most they can be.
        step_tokens: non-padding tokens that these read.
        provenance: the model's revision and digests of the data, for result.json.
        facts: what meta.json says of all this.
    """

    base: Base
    model: Any
    method: Method
    calibration_method: Method | None
    evaluator: Evaluator
    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]
    order: BatchOrder
    probed: BatchOrder
    step_queries: int
    step_tokens: int
    provenance: dict[str, Any]
    facts: dict[str, Any]


def task_setup(cfg: DictConfig) -> TaskSetup:
    """Load the task's examples and the base model.

    Raises:
        UserError: anything wrong with the input.
    """
    try:
        task: Task = build(cfg.task)()
    except TypeError as error:
        raise UserError(f"Invalid task: {error}. Must have the keys of its YAML, and no others.") from None
    splits = task.load(cfg.seeds.data)
    device = pick_device(cfg.runtime.device)
    gc.collect()  # the model of an earlier job may hang in a cycle, and two models may not fit
    with shortage_told(cfg, lambda: "load"):
        base = load_base(
            cfg.model.path,
            revision=cfg.model.revision,
            embedded=cfg.model.embedded,
            bos=cfg.model.bos,
            trust_remote_code=cfg.model.trust_remote_code,
            device=device,
            dtype=cfg.runtime.dtype,
            device_map=cfg.runtime.device_map,
        )
    threads = set_threads(base.model, cfg.runtime.threads)
    if cfg.runtime.compile:
        compile_forward(base.model)
    facts = {
        "device": ", ".join(torch.cuda.get_device_name(d) if d.type == "cuda" else str(d) for d in base.devices),
        "dtype": cfg.runtime.dtype,
        "attention": base.attention,
        "compiled": cfg.runtime.compile,
        "threads": threads,
        "model_revision": base.revision,
        "examples": {"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        "data_files": dict(splits.files),
    }
    encoder = Encoder(base.tokenizer, task.scoring, base.context, base.first_token)
    return TaskSetup(base, task.scoring, splits, encoder, facts)


def assemble(cfg: DictConfig) -> Parts:
    """Build every part of a training run without writing anything.

    Raises:
        UserError: anything wrong with the input.
    """
    on = task_setup(cfg)
    train = on.encoder.encode(on.splits.train, "train")
    model, groups = model_and_groups(cfg, on.base)
    method = method_of(cfg, groups, cfg.seeds.direction)
    if method.needs_grad and on.scoring.loss == "f1":
        raise invalid("method", cfg.method.name, "a zeroth-order method for task.loss=f1, which has no gradient")
    calibration_method = None
    if method.has_directions:
        calibration_method = method_of(cfg, groups, fold_in(cfg.seeds.direction, "calibration"))
    try:
        order = BatchOrder(len(train), cfg.batch_size, cfg.seeds.order)
        probed = BatchOrder(len(train), cfg.batch_size, fold_in(cfg.seeds.order, "calibration"))
    except ValueError as error:
        raise UserError(str(error)) from None
    evaluator = on.evaluator(model, cfg.runtime)
    require_paths(cfg, evaluator, method)

    def tokens(batch: list[int]) -> int:
        return sum(part.tokens for part in evaluator.batches([train[i] for i in batch]))

    # A rate that follows the curvature reads it in the first step too.
    follows = cfg.method.get("lr") == AUTO and cfg.calibration.every > 0
    step_queries = method.queries_per_step
    if follows and method.follows_curvature:
        step_queries += method.queries_per_reading
    step_tokens = step_queries * tokens(order[0])
    if cfg.budget.queries is not None:
        require_budget(cfg, "queries", method, step_queries, lambda i: 1)
    elif cfg.budget.tokens is not None:
        require_budget(cfg, "tokens", method, step_tokens, lambda i: tokens(probed[i]))
    facts = {
        **on.facts,
        "evaluation": cfg.runtime.evaluation,
        "folded": evaluator.perturbed is not None and evaluator.perturbed.fold is not None,
        "trained_parameters": sum(p.numel() for group in method.param_groups for p in group["params"]),
        "first_prompt": first_prompt(on.splits.train[0].prompt, train[0]),
    }
    dev, test = on.encoder.encode(on.splits.dev, "dev"), on.encoder.encode(on.splits.test, "test")
    provenance = {key: on.facts[key] for key in ("model_revision", "data_files")}
    return Parts(
        on.base,
        model,
        method,
        calibration_method,
        evaluator,
        train,
        dev,
        test,
        order,
        probed,
        step_queries,
        step_tokens,
        provenance,
        facts,
    )


def head(cfg: DictConfig, known: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """The fields of a `RunResult` that are known before the run, whatever the job."""
    return {
        "job": cfg.job,
        "run_id": directory.run_id,
        "model": cfg.model.name,
        "task": cfg.task.name,
        "seed": cfg.seed,
        "identity": known,
    }


def first_prompt(text: str, encoded: Encoded) -> dict[str, Any]:
    """One prompt as a person and as the model reads it, for meta.json."""
    return {"text": text, "ids": encoded.prefix, "option_ids": encoded.options}


def tracker_of(cfg: DictConfig, folder: Path, title: str) -> Tracker:
    """The tracker of a run that is recorded in `folder` and called `title`."""
    if cfg.tracker.name != "wandb":
        return NoTracker()
    plain = OmegaConf.to_container(cfg, resolve=True)
    return WandbTracker(
        folder,
        project=cfg.tracker.project,
        entity=cfg.tracker.entity,
        mode=cfg.tracker.mode,
        name=title,
        group=f"{cfg.task.name}/{cfg.model.name}",
        config={str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {},
    )


def model_and_groups(cfg: DictConfig, base: Base) -> tuple[Any, list[dict[str, Any]]]:
    """The model that is trained, the base or PEFT's wrapper around it, and its parameters for a method."""
    if cfg.method.trains != "adapter":
        return base.model, lora.dense_groups(base.model)
    model = lora.attach_lora(
        base.model,
        rank=cfg.rank,
        alpha=cfg.alpha,
        scaling=cfg.method.scaling,
        target_modules=cfg.adapter.target_modules,
        seed=cfg.seeds.adapter,
    )
    return model, lora.lora_groups(model)


def method_of(cfg: DictConfig, groups: list[dict[str, Any]], seed: int) -> Method:
    """The configured method on some parameters; its fall-backs stand in for what is to be measured.

    Args:
        cfg: a checked configuration.
        groups: the parameters.
        seed: of the directions, for a method that has some.

    Raises:
        UserError: arguments that the method does not take.
    """
    known = {key: cfg.method.fallback[key] for key in ("lr", "eps") if cfg.method.get(key) == AUTO}
    if queries_slopes(cfg):
        known["seed"] = seed
    try:
        method: Method = build(cfg.method)(groups, **known)
    except ValueError as error:
        raise UserError(str(error).replace("Invalid ", "Invalid method.", 1)) from None
    except TypeError as error:
        raise UserError(f"Invalid method: {error}. Must have the keys of its YAML, and no others.") from None
    return method
