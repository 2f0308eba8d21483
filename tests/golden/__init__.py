"""Golden trajectories: the slopes of the first steps of every method on the embedded models.

They hold what no law fixes: random streams, initialisation, batch order, prompts, weights. `make golden` writes them
again.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from zo_runner.cli import HOME
from zo_runner.jobs.assemble import assemble

FILE = Path(__file__).with_name("slopes.json")
STEPS = 6
# Methods that measure slopes: those of first order have none, and laws fix what they do.
METHODS = sorted(file.stem for file in (HOME / "conf" / "method").glob("*.yaml") if "eps" in OmegaConf.load(file))
MODELS = ("pocket_opt", "pocket_qwen3")


def cases() -> Iterator[tuple[str, str]]:
    for model in MODELS:
        for method in METHODS:
            yield model, method


def slopes(model: str, method: str) -> list[float]:
    """The slopes of the first STEPS steps at a fixed small learning rate."""
    chosen = [f"model={model}", f"method={method}", "method.lr=1e-5", "method.eps=1e-2", "seed=7"]
    with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        cfg = compose("run", chosen)
    parts = assemble(cfg)
    found = []
    for step in range(STEPS):
        batches = parts.evaluator.batches([parts.train[i] for i in parts.order[step]])
        parts.method.step(lambda batches=batches: parts.evaluator.loss(*batches))
        assert parts.method.report is not None
        found.append(parts.method.report.slopes[0])
    return found


def write() -> None:
    torch.set_num_threads(1)
    found = {f"{model}/{method}": slopes(model, method) for model, method in cases()}
    FILE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
