"""Named sweeps: from the data of sweeps/NAME.yaml to a plan. No Hydra, no torch.

A scale of a sweep is a union of grids. A grid's keys are what a command line takes, its values lists; their product
makes rows, and a row is one line of the table to come. Where `tune` is given, stage one tries its product for every
row on the tuning seeds, without reading test, and stage two runs the best of them on all seeds.

    sweep:
      scales:
        pocket:
          settings: {budget.queries: 1000}            # of every run
          grids:
            - {method: [mezo]}
            - {method: [lora_zo, ar1zo], rank: [4, 64]}
          tune: {method.lr_scale: [0.05, 0.1, 0.2]}   # a grid may have a `tune` of its own, of the same size
          tune_seeds: [0]
          seeds: [0, 1, 2]
          protocol: {learning rate: how it is chosen, and whose protocol that is}
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zo_runner.config.overrides import word
from zo_runner.errors import UserError, invalid, one_of

# Keys of one scale of a sweep.
KEYS = ("settings", "grids", "tune", "tune_seeds", "seeds", "protocol")

# What a file may give for a run: values and choices, not Hydra's own keys, and not what a person must say himself.
_KEY = re.compile(r"(?!hydra\b)[a-z_]+(\.\w+)*")
_TYPED_ONLY = ("model.trust_remote_code", "runtime.root")


@dataclass(frozen=True)
class PlannedRow:
    """One line of the table to come.

    Attributes:
        words: the keys that make it what it is, and their values.
        candidates: the configurations that stage one tries for it; a single one, which may be empty, is not tuned.
    """

    words: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]

    @property
    def label(self) -> str:
        """Name of the row: its method, then its other words."""
        words = {key: value for key, value in self.words.items() if key != "method"}
        return " ".join([str(self.words.get("method", "")), *(f"{k}={v}" for k, v in words.items())]).strip()


@dataclass(frozen=True)
class Plan:
    """A sweep at one scale.

    Attributes:
        settings: overrides of every run.
        rows: what is compared.
        tune_seeds: seeds of stage one.
        seeds: seeds of stage two.
        protocol: what a reader must know, in words.
    """

    settings: dict[str, Any]
    rows: tuple[PlannedRow, ...]
    tune_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    protocol: dict[str, str] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        """True if there is a stage one."""
        return any(len(row.candidates) > 1 for row in self.rows)

    def words(self, row: PlannedRow, candidate: Mapping[str, Any], seed: int) -> list[str]:
        """The overrides of one run."""
        everything = {**self.settings, **row.words, **candidate, "seed": seed}
        return [word(key, value) for key, value in everything.items()]


def plan(scales: Mapping[str, Any], scale: str, given: Mapping[str, Sequence[Any]]) -> Plan:
    """The runs of one scale.

    Args:
        scales: the sweep's scales, as in its file.
        scale: the chosen one.
        given: what the command line says. Its keys take the place of the file's everywhere: one value is a setting of
            every run, several make rows. `seed` takes the place of the seeds of stage two.

    Raises:
        UserError: an unknown scale, a malformed one, or methods that would not be tuned equally.
    """
    if scale not in scales:
        raise invalid("scale", scale, one_of(scales))
    place = f"sweep.scales.{scale}"
    data = _keys(place, scales[scale])
    if unknown := sorted(set(data) - set(KEYS)):
        raise invalid(f"{place}.{unknown[0]}", data[unknown[0]], f"left out: a scale has {', '.join(KEYS)}")
    given = dict(given)
    seeds = _seeds(f"{place}.seeds", given.pop("seed", data.get("seeds")))
    tune_seeds = _seeds(f"{place}.tune_seeds", data.get("tune_seeds", seeds[:1]))
    settings = {
        key: value for key, value in _keys(f"{place}.settings", data.get("settings")).items() if key not in given
    }
    _check_keys(settings, f"{place}.settings")
    settings |= {key: values[0] for key, values in given.items() if len(values) == 1}
    several = {key: values for key, values in given.items() if len(values) > 1}
    rows: dict[str, PlannedRow] = {}
    for grid in _grids(f"{place}.grids", data.get("grids")):
        tune = _keys(f"{place}.tune", grid.get("tune", data.get("tune")))
        tune = {key: values for key, values in tune.items() if key not in given}
        keys = {key: values for key, values in grid.items() if key != "tune" and key not in given}
        _check_keys({**tune, **keys}, f"{place}.grids")
        candidates = tuple(_product(tune, f"{place}.tune"))
        for words in _product({**keys, **several}, f"{place}.grids"):
            rows.setdefault(repr(words), PlannedRow(words, candidates))
    sizes = {len(row.candidates): row for row in rows.values()}
    if len(sizes) > 1:
        told = ", ".join(f"{row.label} tries {size}" for size, row in sorted(sizes.items()))
        raise UserError(f"Invalid {place}.tune: {told} configurations. Must be the same number for every row.")
    protocol = {str(key): str(value) for key, value in _keys(f"{place}.protocol", data.get("protocol")).items()}
    return Plan(settings, tuple(rows.values()), tune_seeds, seeds, protocol)


def _check_keys(keys: Mapping[str, Any], place: str) -> None:
    for key, value in keys.items():
        if not _KEY.fullmatch(str(key)) or key in _TYPED_ONLY:
            raise invalid(f"{place}.{key}", value, "left out: a file cannot set this key, the command line can")


def _keys(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise invalid(place, value, "keys with values")
    return dict(value or {})


def _grids(place: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, Sequence | None) or isinstance(value, str):
        raise invalid(place, value, "a list of grids")
    return [_keys(place, grid) for grid in value or [{}]]


def _product(lists: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    for key, values in lists.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise invalid(f"{place}.{key}", values, "a list of at least one value")
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _seeds(place: str, values: Any) -> tuple[int, ...]:
    try:
        seeds = tuple(int(value) for value in values)
    except (TypeError, ValueError):
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise invalid(place, values, "a list of different integers >= 0")
    return seeds
