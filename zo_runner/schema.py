"""The schema of every closed node of the configuration, and the words that its keys allow. No torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, OmegaConf

JOBS = ("train", "evaluate", "probe", "table")
DTYPES = ("float32", "bfloat16", "float16")
SCALINGS = ("canonical", "rslora", "topology")
ATOMS = ("one", "all")
TRAINS = ("adapter", "full")
AUTO = "auto"


@dataclass
class ModelConfig:
    """The base model. `path` is a Hub id, a folder, or, when embedded, the name of a model that the package carries."""

    name: str = MISSING
    path: str | None = None
    revision: str | None = None
    embedded: bool = False
    bos: str = "native"
    trust_remote_code: bool = False


@dataclass
class AdapterConfig:
    """Which modules LoRA adapts: a list of names, or "all-linear"."""

    name: str = MISSING
    target_modules: Any = MISSING


@dataclass
class BudgetConfig:
    """What a run may spend, in queries; `eval_every` in queries, `log_every` in steps."""

    name: str = MISSING
    queries: int = MISSING
    eval_every: int = MISSING
    log_every: int = MISSING


@dataclass
class NoiseConfig:
    """Evaluation noise: `std` is added on purpose, `repeats` evaluations every `every` steps measure what there is."""

    name: str = MISSING
    std: float = 0.0
    repeats: int = MISSING
    every: int = MISSING


@dataclass
class CalibrationConfig:
    """What `method.lr=auto` and `method.eps=auto` measure: `probes` directions a radius, an FD-SNR to reach, in dB."""

    probes: int = 32
    fd_snr_db: float = 20.0


@dataclass
class EvaluateConfig:
    """What `job=evaluate` scores: a split, by the base or a saved adapter, after `shots` solved examples."""

    adapter: str | None = None
    shots: int = 0
    split: str = "test"


@dataclass
class ProbeConfig:
    """The grid of `job=probe`, and where it is measured: at draws of A, after some steps, or at a saved adapter."""

    ranks: list[int] = field(default_factory=lambda: [1, 4, 16, 64])
    atoms: list[str] = field(default_factory=lambda: list(ATOMS))
    scalings: list[str] = field(default_factory=lambda: list(SCALINGS))
    directions: int = 64
    inits: int = 8
    steps: int = 0
    adapter: str | None = None
    gradient: bool = True


@dataclass
class TrackerConfig:
    """Weights & Biases, or none."""

    name: str = MISSING
    project: str | None = None
    entity: str | None = None
    mode: str = "auto"


@dataclass
class SeedsConfig:
    """The four independent random streams; all follow `seed` unless set."""

    data: int = II("seed")
    adapter: int = II("seed")
    order: int = II("seed")
    direction: int = II("seed")


@dataclass
class RuntimeConfig:
    """Where and how to run. Only `dtype` may change a number, and only it is part of the run's identity."""

    root: str = "runs"
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None


@dataclass
class RunConfig:
    """Everything a run is. `method` and `task` are open nodes whose YAML lists every argument."""

    job: str = "train"
    model: ModelConfig = field(default_factory=ModelConfig)
    task: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    rank: int = 8
    alpha: float = 16.0
    seed: int = 0
    batch_size: int = 16
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def register(sweeps: Path) -> None:
    """Make the schema, and each YAML in `sweeps` as `+sweeps=NAME`, known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for file in sorted(sweeps.glob("*.yaml")):
        store.store(group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_")
