"""Golden trajectories: the slopes of the first steps of every method on the embedded models.

They hold what no law fixes: random streams, initialisation, batch order, prompts, weights. `make golden` writes them
again.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from zo_runner.cli import HOME
from zo_runner.jobs.assemble import Parts, assemble, method_of
from zo_runner.models.lora import dense_groups, lora_groups

FILE = Path(__file__).with_name("slopes.json")
STEPS = 6
# Methods that measure slopes: those of first order have none, and laws fix what they do.
NODES = {file.stem: OmegaConf.load(file) for file in sorted((HOME / "conf" / "method").glob("*.yaml"))}
METHODS = [name for name, node in NODES.items() if "eps" in node]
MODELS = ("pocket_opt", "pocket_qwen3")


def cases() -> Iterator[tuple[str, str]]:
    for model in MODELS:
        for method in METHODS:
            yield model, method


@functools.cache
def assembled(model: str, trains: str, scaling: str) -> tuple[Parts, list[torch.Tensor]]:
    """The parts of a run, which all methods that train the same share, and the start of what they train."""
    method = next(name for name in METHODS if (NODES[name].trains, NODES[name].scaling) == (trains, scaling))
    parts = assemble(configuration(model, method))
    return parts, [param.clone() for _, param, _ in parts.method.tensors()]


def configuration(model: str, method: str) -> OmegaConf:
    chosen = [f"model={model}", f"method={method}", "method.lr=1e-5", "method.eps=1e-2", "seed=7"]
    with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        return compose("run", chosen)


def slopes(model: str, name: str) -> list[float]:
    """The slopes of the first STEPS steps at a fixed small learning rate."""
    cfg = configuration(model, name)
    parts, start = assembled(model, cfg.method.trains, cfg.method.scaling)
    groups = (lora_groups if cfg.method.trains == "adapter" else dense_groups)(parts.model)
    method = method_of(cfg, groups, cfg.seeds.direction)
    with torch.no_grad():
        for (_, param, _), value in zip(method.tensors(), start, strict=True):
            param.copy_(value)
    found = []
    for step in range(STEPS):
        batches = parts.evaluator.batches([parts.train[i] for i in parts.order[step]])
        method.step(lambda batches=batches: parts.evaluator.loss(*batches))
        assert method.report is not None
        found.append(method.report.slopes[0])
    return found


def write() -> None:
    torch.set_num_threads(1)
    found = {f"{model}/{method}": slopes(model, method) for model, method in cases()}
    FILE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
