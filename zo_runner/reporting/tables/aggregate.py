"""Results -> rows: one configuration each, with its seeds sorted by what may be averaged. No torch.

A row is what one line of a table says. Of its runs only those that reached the end of their budget with whole, finite
scores are averaged; the others are counted.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zo_runner.records.json_files import encode
from zo_runner.records.result import TrainResult
from zo_runner.tasks.metrics import metric_of

# Parts of a run's identity that have columns of their own.
SHOWN = ("rank", "method.lr", "method.eps", "method.name")


@dataclass(frozen=True)
class ResultRow:
    """All seeds of one configuration.

    Attributes:
        key: `configuration` of its identity.
        identity: flattened identity without seeds.
        done: results that are averaged: budget spent, scores whole and finite, seed unambiguous.
        diverged: results whose loss stopped being a number.
        invalid: results with status done and without a finite score, and those of which there are two for one seed.
        missing: number of runs of this configuration without a finished result.
        clashes: seeds with several results, a phrase each.
        flaws: of the other invalid runs, a phrase each.
    """

    key: str
    identity: dict[str, Any]
    done: tuple[TrainResult, ...] = ()
    diverged: tuple[TrainResult, ...] = ()
    invalid: tuple[TrainResult, ...] = ()
    missing: int = 0
    clashes: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """Name of its method."""
        return str(self.identity["method.name"])

    @property
    def rank(self) -> int | None:
        """Stored rank, None for methods without one."""
        return self.identity.get("rank")

    @property
    def label(self) -> str:
        """Method and rank."""
        return self.method if self.rank is None else f"{self.method} rank={self.rank}"


def sections(results: Sequence[TrainResult]) -> dict[tuple[str, str], list[ResultRow]]:
    """Rows by (task, model), in the order of method and rank.

    Args:
        results: of any status. A result that is given twice counts once. One with status "missing" stands for a run
            that does not exist, and yields to the run where that is given too.
    """
    grouped: dict[tuple[str, str], dict[str, list[TrainResult]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        grouped[result.task, result.model][configuration(result.identity)].append(result)
    return {
        section: sorted((_row(key, members) for key, members in rows.items()), key=_position)
        for section, rows in sorted(grouped.items())
    }


def configuration(identity: Mapping[str, Any]) -> str:
    """Hash of an identity without seeds, which all runs of one row share."""
    return hashlib.sha256(json.dumps(_without_seeds(identity), sort_keys=True).encode()).hexdigest()


def _without_seeds(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key != "seeds"}


def _position(row: ResultRow) -> tuple[Any, ...]:
    return row.method, row.rank or 0, json.dumps(row.identity, sort_keys=True)


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as they are."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differing(rows: Iterable[ResultRow]) -> list[str]:
    """Keys of the identity in which the rows differ, sorted. A key that is not there counts as null."""
    flat = [row.identity for row in rows]
    keys = sorted({key for identity in flat for key in identity})
    return [key for key in keys if len({json.dumps(identity.get(key)) for identity in flat}) > 1]


def labels(rows: Iterable[ResultRow]) -> dict[str, str]:
    """Names of rows in sentences, by key: method and rank, and whatever else it takes to tell them apart."""
    alike: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        alike[row.label].append(row)
    return {
        row.key: " ".join([label, *(f"{key}={row.identity.get(key)}" for key in differing(members))])
        for label, members in alike.items()
        for row in members
    }


def _row(key: str, members: list[TrainResult]) -> ResultRow:
    unique = {json.dumps(encode(result.to_dict()), sort_keys=True): result for result in members if result.finished}
    seeds: dict[str, list[TrainResult]] = defaultdict(list)
    for _, result in sorted(unique.items(), key=lambda item: (item[1].seed, item[1].run_id, item[0])):
        seeds[result.streams].append(result)
    kinds: dict[str, list[TrainResult]] = {"done": [], "diverged": [], "invalid": []}
    clashes, flaws = [], []
    for seed, same in seeds.items():
        ids = ", ".join(dict.fromkeys(result.run_id for result in same))
        if len(same) > 1:
            kinds["invalid"] += same
            clashes.append(f"seed {seed} is there {len(same)} times (runs {ids})")
        elif same[0].status == "diverged":
            kinds["diverged"] += same
        elif wrong := same[0].flaw(metric_of(same[0].metric).most):
            kinds["invalid"] += same
            flaws.append(f"run {ids} (seed {seed}) says done and {wrong}")
        else:
            kinds["done"] += same
    missing = {result.run_id for result in members} - {result.run_id for result in unique.values()}
    return ResultRow(
        key,
        flatten(_without_seeds(members[0].identity)),
        **{kind: tuple(found) for kind, found in kinds.items()},
        missing=len(missing),
        clashes=tuple(clashes),
        flaws=tuple(flaws),
    )
