"""job=replay: the parameters of a run after any of its steps, from its journal alone, without a forward pass.

A zeroth-order step is a seed and a slope, so that a journal is the whole trajectory. The base model is loaded and the
adapter drawn as the run did it, then every line moves the parameters along the direction that it names. What comes of
it is compared with whatever the run itself has saved at that step.

The numbers are the run's to the last bit where software, device and dtype are; what is different is said. Directions of
an adapter are drawn on the CPU, the same ones for every device; those of a fully trained model on the model's own.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file

from zo_runner.config import validation, yaml_files
from zo_runner.config.identity import identify_model
from zo_runner.config.schema import RunConfig
from zo_runner.errors import Fault, invalid
from zo_runner.jobs.assemble import method_of, model_and_groups
from zo_runner.methods.base import Method
from zo_runner.models import lora
from zo_runner.models.base_model import load_base, pick_device, set_threads
from zo_runner.records import journal
from zo_runner.records.provenance import differences, environment
from zo_runner.records.result import TrainResult
from zo_runner.records.run_directory import RunDirectory, read_meta
from zo_runner.training import checkpoint
from zo_runner.training.outcome import StepRecord

NAME = "replay"


@dataclass(frozen=True)
class Comparison:
    """Difference between a replay and parameters that the run saved.

    Attributes:
        what: file or folder of the run.
        difference: the largest of any number, in parameter units; 0 only where every bit is the same.
    """

    what: str
    difference: float

    def __str__(self) -> str:
        if self.difference == 0:
            return f"bit for bit what {self.what} holds"
        return f"up to {self.difference:.2g} from what {self.what} holds"


@dataclass(frozen=True)
class Replayed:
    """Result of a replay.

    Attributes:
        folder: where the parameters were written.
        steps: that were taken.
        seconds: that they took, without loading.
        journal_bytes: of the lines that were read.
        number_bytes: of the slopes, rates and curvatures in them, as float64: what the trajectory needs beside the
            seed and the configuration.
        comparisons: with what the run has saved at that step.
        differs: software and hardware that is not as it was.
    """

    folder: Path
    steps: int
    seconds: float
    journal_bytes: int
    number_bytes: int
    comparisons: list[Comparison]
    differs: list[str]

    def __str__(self) -> str:
        found = "; ".join(map(str, self.comparisons)) or "the run has saved nothing at this step to compare with"
        size = f"{self.journal_bytes / 1000:.1f} kB of journal, {self.number_bytes / 1000:.1f} kB of them numbers"
        return f"replayed {self.steps} steps in {self.seconds:.1f} s from {size}; {found}; {self.folder}"


def replay(
    folder: Path, step: int | None, *, device: str, threads: int | None, trust_remote_code: bool = False
) -> Replayed:
    """Rebuild the trained parameters of a run and write them to replay/step-N below it.

    Args:
        folder: of a training run, finished or not.
        step: how many of its steps to take; None for all.
        device: "auto", or a torch device.
        threads: of torch; None to choose them.
        trust_remote_code: run code that the model brings. The run's own configuration cannot say so.

    Raises:
        UserError: not such a run, or no such step.
        Fault: a file of it is damaged.
    """
    directory = RunDirectory(folder)
    cfg = _configuration(folder)
    base = load_base(
        cfg.model.path,
        revision=cfg.model.revision,
        embedded=cfg.model.embedded,
        bos=cfg.model.bos,
        trust_remote_code=trust_remote_code,
        device=pick_device(device),
        dtype=cfg.runtime.dtype,
        device_map=None,
    )
    meta = read_meta(directory.path)
    if identify_model(cfg) != meta.get("identity", {}).get("model"):
        raise invalid("run", str(folder), f"a run of the model that now lies at {cfg.model.path}")
    now = {**environment(), "device": str(base.device), "threads": set_threads(base.model, threads)}
    model, groups = model_and_groups(cfg, base)
    method = method_of(cfg, groups, cfg.seeds.direction)
    if not method.replayable:
        allowed = "a run of a zeroth-order method: gradients are not in the journal"
        raise invalid("run", str(folder), allowed)
    started = time.perf_counter()
    journal_bytes, numbers = 0, 0
    for line in _lines(folder / journal.NAME, directory.run_id, step):
        report = StepRecord.of_row(line.row).report
        for group in method.param_groups:
            group["lr"] = report.lr
        method.replay(report)
        journal_bytes = line.end
        numbers += len(report.slopes) + 1 + (report.curvature is not None)
    seconds = time.perf_counter() - started
    place = f"{NAME}/step-{method.steps}"
    directory.replace(place, lambda new: lora.save(model, new))
    return Replayed(
        folder / place,
        method.steps,
        seconds,
        journal_bytes,
        8 * numbers,
        list(_compare(directory, model, method)),
        list(differences(meta, now)),
    )


def _configuration(folder: Path) -> DictConfig:
    if not (folder / "config.yaml").is_file():
        raise invalid("run", str(folder), "the folder of a run, with its config.yaml")
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(RunConfig), yaml_files.read(folder / "config.yaml"))
    except OmegaConfBaseException as error:
        raise invalid("run", str(folder), f"the folder of a run ({' '.join(str(error).split())})") from None
    assert isinstance(cfg, DictConfig)
    validation.check(cfg)
    if cfg.job != "train":
        raise invalid("run", str(folder), f"a training run, and not job={cfg.job}")
    return cfg


def _lines(file: Path, run_id: str, step: int | None) -> Iterator[journal.Line]:
    """The lines of the steps before `step`."""
    count = 0
    for line in journal.read(file, run_id):
        if count == step:
            return
        count += 1
        yield line
    if step is not None and count < step:
        raise invalid("step", step, f"from 0 to {count}, the steps of the run's journal")


def _compare(directory: RunDirectory, model: Any, method: Method) -> Iterator[Comparison]:
    result = directory.result()
    named = lora.named_tensors(model)
    for what, point in (("adapter", "last"), ("last", "last"), ("best", "best")):
        known = isinstance(result, TrainResult) and result.score("dev", point, "step") == method.steps
        if known and (directory.path / what).is_dir():
            yield Comparison(f"{what}/", _distance(named, _stored(directory.path / what)))
    if (directory.path / checkpoint.NAME).exists():
        state, stored = checkpoint.load(directory.path / checkpoint.NAME)
        if state["steps"] == method.steps:
            parameters = {
                f"parameter.{g}.{i}": param
                for g, group in enumerate(method.param_groups)
                for i, param in enumerate(group["params"])
            }
            yield Comparison(checkpoint.NAME, _distance(parameters, stored))


def _stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(str(file))
        except (OSError, SafetensorError) as error:
            raise Fault(f"Cannot read {file}: {error}.") from None
    return tensors


def _distance(found: dict[str, torch.Tensor], stored: dict[str, torch.Tensor]) -> float:
    """The largest difference of any number. Infinite where a tensor is missing or of another shape."""
    largest = 0.0
    for name, tensor in found.items():
        other = stored.get(name)
        if other is None:
            continue  # of tied tensors one name is stored
        if other.shape != tensor.shape:
            return float("inf")
        here = tensor.detach().cpu()
        if not torch.equal(here, other):
            largest = max(largest, float((here.double() - other.double()).abs().max()))
    return largest if any(name in stored for name in found) else float("inf")
