"""The schema of the configuration: keys, types, defaults and ranges. No torch.

A field's `metadata` holds what its type cannot express, and `validation` checks it: `ge`, `gt` and `le` bound a finite
number, `finite` only asks for one, `integer` asks a float for a whole number, and `options` lists the allowed values.
Items of a list must differ and keep to the same rules.
"""

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

SCALINGS = ("canonical", "rslora", "topology")
ATOMS = ("one", "all")
AUTO = "auto"
BUDGET_UNITS = ("queries", "tokens", "seconds")
# The cost of a calibration is counted before it begins, direction by direction.
MOST_PROBES = 10_000
# More than any machine has; torch takes no number of more than 31 bits.
MOST_THREADS = 65_536


@dataclass
class ModelConfig:
    """The base model. `path` is a Hub id, a folder, or, when embedded, the name of a model in the package."""

    name: str = MISSING
    path: str | None = None
    revision: str | None = None
    embedded: bool = False
    bos: str = field(default="native", metadata={"options": ("native", "mezo")})
    trust_remote_code: bool = False


@dataclass
class MethodConfig:
    """The keys that describe a method in conf/method; all others of its file are arguments of its constructor.

    `version` goes up when the same settings give other numbers. `trains` and `scaling` are the defaults of a run.
    `adapter_only`: the method needs LoRA's pairs of factors, so method.trains=full is refused. `needs_grad`: it
    differentiates the loss, as its class says too; without, it has an `eps`, an `lr_scale` (what lr=auto multiplies)
    and a `fallback`, the lr and eps for where these cannot be measured. `ineffective`: arguments without effect, each
    with the values of others where that is so: {order: {atoms: all}}.
    """

    name: str = MISSING
    version: int | None = None
    trains: str = field(default=MISSING, metadata={"options": ("adapter", "full")})
    scaling: str = field(default=MISSING, metadata={"options": SCALINGS})
    adapter_only: bool = field(default=False, metadata={"options": (False, True)})
    needs_grad: bool = field(default=False, metadata={"options": (False, True)})
    ineffective: dict[str, dict[str, Any]] = field(default_factory=dict)
    lr_scale: float | None = field(default=None, metadata={"gt": 0})
    fallback: dict[str, float] = field(default_factory=dict)


@dataclass
class AdapterConfig:
    """The modules that LoRA adapts: a list of names, or "all-linear"."""

    name: str = MISSING
    target_modules: Any = MISSING


@dataclass
class BudgetConfig:
    """The budget of a run: exactly one of queries, tokens and seconds. `eval_every` in queries, `log_every` in steps.

    `tokens` is a float, so that 2e6 can be typed.
    """

    name: str = MISSING
    queries: int | None = field(default=None, metadata={"ge": 1})
    tokens: float | None = field(default=None, metadata={"ge": 1, "integer": True})
    seconds: float | None = field(default=None, metadata={"gt": 0})
    eval_every: int = field(default=MISSING, metadata={"ge": 1})
    log_every: int = field(default=MISSING, metadata={"ge": 1})


@dataclass
class NoiseConfig:
    """Evaluation noise: `std` is added on purpose; `repeats` evaluations every `every` steps measure the whole."""

    name: str = MISSING
    std: float = field(default=0.0, metadata={"ge": 0})
    repeats: int = field(default=MISSING, metadata={"ge": 0})
    every: int = field(default=MISSING, metadata={"ge": 1})


@dataclass
class CalibrationConfig:
    """Measurements for `method.lr=auto` and `method.eps=auto`: `probes` directions a radius, an FD-SNR to reach, in dB.

    `every`: steps between further readings of the curvature, which the rate follows; 0 for none. `walk`: the largest
    random walk of A over the budget, in units of its size at the start, times lr_scale; null for any.
    """

    probes: int = field(default=16, metadata={"ge": 1, "le": MOST_PROBES})
    every: int = field(default=16, metadata={"ge": 0})
    walk: float | None = field(default=20.0, metadata={"gt": 0})
    fd_snr_db: float = field(default=20.0, metadata={"finite": True})


@dataclass
class GuardConfig:
    """Rules that end a run as diverged; null switches one off.

    `slope`: a slope larger than this many root mean squares of all before it. `still`: this many steps of equal loss.
    """

    slope: float | None = field(default=1000.0, metadata={"gt": 1})
    still: int | None = field(default=200, metadata={"ge": 2})


@dataclass
class EvaluateConfig:
    """The score of `job=evaluate`: of a split, by the base or a saved adapter, after `shots` solved examples."""

    adapter: str | None = None
    shots: int = field(default=0, metadata={"ge": 0})
    split: str = field(default="test", metadata={"options": ("dev", "test")})


@dataclass
class ProbeConfig:
    """The grid of `job=probe`, and its point: draws of A, what some steps make of them, or a saved adapter."""

    ranks: list[int] = field(default_factory=lambda: [1, 4, 16, 64], metadata={"ge": 1})
    atoms: list[str] = field(default_factory=lambda: list(ATOMS), metadata={"options": ATOMS})
    scalings: list[str] = field(default_factory=lambda: list(SCALINGS), metadata={"options": SCALINGS})
    directions: int = field(default=64, metadata={"ge": 2})
    inits: int = field(default=8, metadata={"ge": 1})
    steps: int = field(default=0, metadata={"ge": 0})
    adapter: str | None = None
    gradient: bool = True


@dataclass
class TrackerConfig:
    """Weights & Biases, or none."""

    name: str = MISSING
    project: str | None = None
    entity: str | None = None
    mode: str = field(default="auto", metadata={"options": ("auto", "offline", "online")})


@dataclass
class SeedsConfig:
    """The four independent random streams; all follow `seed` unless set."""

    data: int = field(default=II("seed"), metadata={"ge": 0})
    adapter: int = field(default=II("seed"), metadata={"ge": 0})
    order: int = field(default=II("seed"), metadata={"ge": 0})
    direction: int = field(default=II("seed"), metadata={"ge": 0})


@dataclass
class RuntimeConfig:
    """Device, precision and folders. Only `dtype`, which changes more than the last digits, enters the identity.

    Without `test` the test split is left unread; the same command with it reads it later, from the saved parameters.
    With `device_map` auto the layers are spread over all accelerators. `compile` fuses the model's forward. With
    `resume` an interrupted run continues from its journal and its latest checkpoint, saved every `checkpoint_every`
    queries (null: with dev evaluations only); without, it starts anew. `measure_memory` counts the bytes of a step's
    tensors.
    """

    root: str = "runs"
    device: str = "auto"
    device_map: str | None = field(default=None, metadata={"options": (AUTO,)})
    dtype: str = field(default="float32", metadata={"options": ("float32", "bfloat16", "float16")})
    compile: bool = False
    threads: int | None = field(default=None, metadata={"ge": 1, "le": MOST_THREADS})
    evaluation: str = field(default="auto", metadata={"options": (AUTO, "batched", "sequential")})
    fold: bool | None = None
    test: bool = True
    resume: bool = True
    checkpoint_every: int | None = field(default=1000, metadata={"ge": 1})
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
    """The whole configuration. `method` and `task` are open nodes whose YAML lists every argument.

    `run` and `step` belong to `job=replay`: the folder of a run, and the number of its steps to repeat.
    """

    job: str = field(default="train", metadata={"options": ("train", "evaluate", "probe", "table", "report", "replay")})
    run: str | None = None
    step: int | None = field(default=None, metadata={"ge": 0})
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
    rank: int = field(default=8, metadata={"ge": 1})
    alpha: float = field(default=16.0, metadata={"gt": 0})
    seed: int = field(default=0, metadata={"ge": 0})
    batch_size: int = field(default=16, metadata={"ge": 1})
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


# Keys of a run that hold a node and not a value.
NODES = frozenset(node.name for node in fields(RunConfig) if node.default is NO_DEFAULT)

# In the folder name of a multirun: clocks go backwards, and the jobs of an array start at the same instant.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(4), use_cache=True, replace=True)

# The name by which conf/run.yaml asks for this schema.
ConfigStore.instance().store(name="run_schema", node=RunConfig)
