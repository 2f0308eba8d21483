"""The schema of every closed node of the configuration, the words that its keys allow, and where it lies. No torch."""

import secrets
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, OmegaConf

PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel conf/ and sweeps/ lie inside the package, in a checkout beside it.
HOME = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent

JOBS = ("train", "evaluate", "probe", "table", "report", "replay")
DTYPES = ("float32", "bfloat16", "float16")
SCALINGS = ("canonical", "rslora", "topology")
ATOMS = ("one", "all")
EVALUATIONS = ("auto", "batched", "sequential")
TRAINS = ("adapter", "full")
AUTO = "auto"
BUDGET_UNITS = ("queries", "tokens", "seconds")


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
    """What a run may spend: exactly one of queries, tokens and seconds. `eval_every` in queries, `log_every` in steps.

    `tokens` is a float, so that 2e6 is a number of them.
    """

    name: str = MISSING
    queries: int | None = None
    tokens: float | None = None
    seconds: float | None = None
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
    """What `method.lr=auto` and `method.eps=auto` measure: `probes` directions a radius, an FD-SNR to reach, in dB.

    `every`: steps between further readings of the curvature, which the rate follows; 0 for none. `walk`: how far chance
    may lead A by the end of the budget, in its size at the start, times lr_scale; null for any distance.
    """

    probes: int = 16
    every: int = 16
    walk: float | None = 20.0
    fd_snr_db: float = 20.0


@dataclass
class GuardConfig:
    """What ends a run as diverged; null switches it off.

    `slope`: a slope of more than so many root mean squares of all before it. `still`: so many steps with one loss.
    """

    slope: float | None = 1000.0
    still: int | None = 200


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
    """Where and how to run. Only `dtype`, which changes more than the last digits, is part of the run's identity.

    Without `test` the test split is left unread; the same command with it reads it later, from the saved parameters.
    With `device_map` auto the layers are spread over all accelerators. `compile` fuses the model's forward. With
    `resume` a run that was cut off goes on, from a checkpoint made every `checkpoint_every` queries (null: with dev
    evaluations only) and its journal; without, it starts anew. `measure_memory` counts the bytes of a step's tensors.
    """

    root: str = "runs"
    device: str = "auto"
    device_map: str | None = None
    dtype: str = "float32"
    compile: bool = False
    threads: int | None = None
    evaluation: str = "auto"
    fold: bool | None = None
    test: bool = True
    resume: bool = True
    checkpoint_every: int | None = 1000
    measure_memory: bool = False


@dataclass
class SweepConfig:
    """A named sweep, as sweeps/NAME.yaml has it; `zo_runner/jobs/sweeps/plan.py` says what a scale is.

    `select`: which dev score of a run chooses, best or last. `baseline`: the method that others are paired with.
    """

    name: str | None = None
    title: str = ""
    question: str = ""
    scales: dict[str, Any] = field(default_factory=dict)
    select: str = "best"
    baseline: str | None = None
    match: str = "queries"
    allow_unmatched: bool = False
    figures: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    dry_run: bool = False


@dataclass
class RunConfig:
    """Everything a run is. `method` and `task` are open nodes whose YAML lists every argument.

    `run` and `step` are of `job=replay`: the folder of a run, and after how many of its steps.
    """

    job: str = "train"
    run: str | None = None
    step: int | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    task: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    scale: str = "pocket"
    rank: int = 8
    alpha: float = 16.0
    seed: int = 0
    batch_size: int = 16
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


# Keys of a run that hold a node and not a value.
NODES = frozenset(node.name for node in fields(RunConfig) if node.default is NO_DEFAULT)

# Of the folder of a multirun: clocks go backwards, and the jobs of an array start at the same instant.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(4), use_cache=True, replace=True)

# The name by which conf/run.yaml asks for this schema.
ConfigStore.instance().store(name="run_schema", node=RunConfig)
