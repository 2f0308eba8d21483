"""result.json: its types, and the one place where it is read and written. No torch.

    TrainResult      job=train      scores, budget and what was charged to it, signal, costs
    EvaluateResult   job=evaluate   the score of one split
    ProbeResult      job=probe      the measured cells and the report

The fields are the keys of the file. A file is refused as a whole, with the first field that is missing or has another
type; what is in range and finite is for `TrainResult.flaw` to say.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from zo_runner.errors import Fault, UserError, invalid, one_of
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.json_files import checksum, decode, encode, read_object

SCHEMA = 4

# Purposes whose queries, tokens and seconds count towards the budget.
CHARGED = ("train", "calibration")

# Points of a split that a finished run must have scored. Test may be unread.
_POINTS = {"dev": ("zero_shot", "best", "last"), "test": ("best", "last")}


class Queries(TypedDict):
    """Queries by purpose; noise is not charged."""

    train: int
    calibration: int
    noise: int


class Seconds(TypedDict):
    """Wall clock by phase, in all, and the median of a step (NaN without a step)."""

    train: float
    calibration: float
    noise: float
    eval: float
    total: float
    step_median: float


def _no_seconds() -> Seconds:
    return Seconds(train=0.0, calibration=0.0, noise=0.0, eval=0.0, total=0.0, step_median=math.nan)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Labels and outcome of a run, whatever its job.

    Attributes:
        job: train, evaluate or probe.
        run_id: ten digits of the identity.
        model: name.
        task: name.
        seed: of all random streams.
        identity: everything that the numbers depend on.
        status: done, diverged, interrupted or failed; missing for a planned run without a result.
        error: reason of the status, None for done.
        peak_memory_bytes: of the process or the accelerator.
        peak_memory_of: kind of memory that `peak_memory_bytes` counts.
    """

    job: str
    run_id: str
    model: str
    task: str
    seed: int
    identity: dict[str, Any]
    status: str
    error: str | None = None
    peak_memory_bytes: int | None = None
    peak_memory_of: str = ""

    @property
    def finished(self) -> bool:
        """True if the run has reached the end of its budget or diverged."""
        return self.status in ("done", "diverged")

    def is_complete(self, *, tested: bool) -> bool:
        """True if nothing is left to do; with `tested`, training must have read test."""
        return self.finished

    def to_dict(self) -> dict[str, Any]:
        """The object of result.json, not encoded."""
        return {"schema": SCHEMA, **vars(self)}


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(RunResult):
    """The score of one split; `metrics` is split -> loss and metrics."""

    adapter: str | None
    shots: int
    split: str
    metric: str
    metrics: dict[str, dict[str, float]]
    examples: int
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ProbeResult(RunResult):
    """Number of measured cells, queries by purpose, and the report as Markdown."""

    cells: int
    queries: dict[str, int]
    seconds: dict[str, float]
    report: str


@dataclass(frozen=True, kw_only=True)
class TrainResult(RunResult):
    """Scores and costs of a training run. The defaults are those of a run that has not begun.

    Attributes:
        method: name.
        rank: None for a method that trains the full model, as are `alpha` and `scaling`.
        lr: learning rate; "auto" if calibration failed.
        eps: perturbation radius; "auto" as for `lr`.
        metric: the task's first metric, which selects.
        metrics: split (dev, test) -> point (zero_shot, best, last) -> loss, metrics, step, queries.
        tested: True if test was read.
        provenance: revision of the model and digests of the data files.
        calibration: measurements of the calibration, None without one.
        budget: unit (queries, tokens, seconds) -> amount granted; one is not None.
        examples: in charged queries.
        tokens: in charged queries.
        flops: of charged queries, estimated.
        evaluated: examples scored for dev and test.
        signal: last readings of the signal meter.
        coverage: of the atoms, None for methods that query all at once.
        objective: best dev loss, None before the first evaluation.
        memory_bytes: of tensors: model, inference, step; empty where it was not measured.
    """

    method: str
    rank: int | None
    alpha: float | None = None
    scaling: str | None = None
    lr: float | str | None = None
    eps: float | str | None = None
    metric: str = ""
    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    tested: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    budget: dict[str, float | None] = field(default_factory=dict)
    queries: Queries = field(default_factory=lambda: Queries(train=0, calibration=0, noise=0))
    examples: int = 0
    tokens: int = 0
    flops: float = 0.0
    evaluated: int = 0
    seconds: Seconds = field(default_factory=_no_seconds)
    signal: dict[str, float | None] = field(default_factory=dict)
    coverage: dict[str, Any] | None = None
    objective: float | None = None
    memory_bytes: dict[str, int | None] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Method, rank where there is one, and seed."""
        return f"{self.method}{'' if self.rank is None else f' rank={self.rank}'} seed={self.seed}"

    @property
    def streams(self) -> str:
        """The seed, and every random stream that does not follow it; two runs of a table's row must not share them."""
        own = sorted((name, seed) for name, seed in self.identity.get("seeds", {}).items() if seed != self.seed)
        return " ".join([str(self.seed), *(f"{name}={seed}" for name, seed in own)])

    @property
    def fd_snr_db(self) -> float:
        """FD-SNR at the end of training in dB, NaN where it was not measured."""
        return self.amount("signal", "zo/fd_snr_db")

    def is_complete(self, *, tested: bool) -> bool:
        """True if nothing is left to do; with `tested`, test must have been read."""
        return self.finished and (self.tested or not tested)

    def score(self, split: str, point: str, name: str | None = None) -> float | None:
        """A score at a point of a split: the first metric, or `name`. None where it was not read."""
        return self.metrics.get(split, {}).get(point, {}).get(name or self.metric)

    def charged(self, unit: str) -> float:
        """Queries, tokens or seconds charged to the budget."""
        return self.tokens if unit == "tokens" else sum(self.amount(unit, purpose) for purpose in CHARGED)

    def amount(self, name: str, key: str | None = None) -> float:
        """The number in a field, or under one of its keys; NaN where there is none."""
        value = getattr(self, name)
        value = value.get(key) if key is not None else value
        return value if isinstance(value, int | float) else math.nan

    def flaw(self, most: float) -> str:
        """Reason why a run with status done cannot be averaged; "" if it can.

        Args:
            most: highest value that the first metric can have.
        """
        for split, points in _POINTS.items():
            for point in points if split == "dev" or self.metrics.get(split) else ():
                for name, low, high in ((self.metric, 0.0, most), ("loss", -math.inf, math.inf)):
                    score = self.score(split, point, name)
                    if score is None or not math.isfinite(score) or not low <= score <= high:
                        return f"has {split} {point} {name} {score!r}"
        return ""


_KINDS: dict[str, type[RunResult]] = {"train": TrainResult, "evaluate": EvaluateResult, "probe": ProbeResult}


def from_dict(data: Mapping[str, Any]) -> RunResult:
    """The result in a decoded object.

    Raises:
        UserError: the first field that is missing or has another type, by its dotted key.
    """
    kind = _KINDS.get(str(data.get("job")))
    if kind is None:
        raise invalid("job", data.get("job"), one_of(_KINDS))
    _check_keys("", data, get_type_hints(kind))
    if kind is TrainResult:
        _check_keys("identity.", data["identity"], {"method": dict[str, Any], "seeds": dict[str, Any]})
        _check_keys("identity.method.", data["identity"]["method"], {"name": str})
    return kind(**{name: data[name] for name in get_type_hints(kind)})


def _check_keys(prefix: str, data: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
        if name not in data:
            raise UserError(f"Missing key {prefix}{name}.")
        _check(f"{prefix}{name}", data[name], kind)


def _check(name: str, value: Any, kind: Any) -> None:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    nested = next((each for each in kinds if get_origin(each) is dict or is_typeddict(each)), None)
    if nested is not None and isinstance(value, dict):
        keys = get_type_hints(nested) if is_typeddict(nested) else dict.fromkeys(value, get_args(nested)[1])
        _check_keys(f"{name}.", value, keys)
    elif Any not in kinds:
        plain = {each for each in kinds if each is not nested} | ({int} if float in kinds else set())
        if type(value) not in plain:
            raise invalid(name, value, f"of type {getattr(kind, '__name__', kind)}")


def read_result(file: Path) -> RunResult | None:
    """The result in a file; None where there is none, and for one of another version.

    Raises:
        Fault: the file was cut off or changed, or a field of it has another type.
    """
    if not file.exists() or is_of_another_version(file):
        return None
    plain = read_object(file)
    if plain is None or plain.pop("checksum", None) != checksum(plain):
        raise Fault(f"{file} is cut off or was changed. Move its folder away to make the run again.")
    try:
        return from_dict(decode(plain))
    except UserError as error:
        raise Fault(f"{file}: {error} Move its folder away to make the run again.") from None


def is_of_another_version(file: Path) -> bool:
    """True if the file holds a result of another schema."""
    plain = read_object(file)
    return plain is not None and plain.get("schema") != SCHEMA


def write_result(file: Path, result: RunResult) -> None:
    """Write a result with its checksum, atomically."""
    plain = json.loads(json.dumps(encode(result.to_dict()), allow_nan=False))
    write_atomic(file, json.dumps({**plain, "checksum": checksum(plain)}, indent=2) + "\n")
