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
        invalid: results that say "done" and lack a finite score, and runs of which there are two for one seed.
        missing: number of runs of this configuration without a finished result.
        clashes: runs that contradict each other, a phrase each: two of one seed, or two contents of one run.
        flaws: what is wrong with the other invalid runs, a phrase each.
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
    contested = _contested(results)
    grouped: dict[tuple[str, str], dict[str, list[TrainResult]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        grouped[result.task, result.model][configuration(result.identity)].append(result)
    return {
        section: sorted((_row(key, members, _own(contested, members)) for key, members in rows.items()), key=_position)
        for section, rows in sorted(grouped.items())
    }


def _own(contested: Mapping[str, int], members: Iterable[TrainResult]) -> dict[str, int]:
    ids = {result.run_id for result in members}
    return {run: count for run, count in contested.items() if run in ids}


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


def _row(key: str, members: list[TrainResult], contested: Mapping[str, int]) -> ResultRow:
    finished, missing = _finished(members)
    seeds: dict[str, list[TrainResult]] = defaultdict(list)
    for result in finished:
        seeds[result.streams].append(result)
    kinds: dict[str, list[TrainResult]] = {"done": [], "diverged": [], "invalid": []}
    clashes = [f"run {run} is there with {n} different results" for run, n in contested.items()]
    flaws: list[str] = []
    for seed, same in seeds.items():
        ids = sorted({result.run_id for result in same})
        if len(ids) > 1:
            clashes.append(f"seed {seed} is there {len(ids)} times (runs {', '.join(ids)})")
        if len(ids) > 1 or ids[0] in contested:
            kinds["invalid"] += same
        elif same[0].status == "diverged":
            kinds["diverged"] += same
        elif wrong := same[0].flaw(metric_of(same[0].metric).most):
            kinds["invalid"] += same
            flaws.append(f"run {ids[0]} (seed {seed}) says done and {wrong}")
        else:
            kinds["done"] += same
    results = {kind: tuple(found) for kind, found in kinds.items()}
    identity = flatten(_without_seeds(members[0].identity))
    return ResultRow(key, identity, **results, missing=missing, clashes=tuple(clashes), flaws=tuple(flaws))


def _finished(members: list[TrainResult]) -> tuple[list[TrainResult], int]:
    """Finished results by seed, each once; and how many runs have none."""
    unique = {_content(result): result for result in members if result.finished}
    found = [result for _, result in sorted(unique.items(), key=lambda item: (item[1].seed, item[1].run_id, item[0]))]
    missing = {result.run_id for result in members} - {result.run_id for result in found}
    return found, len(missing)


def _contested(results: Iterable[TrainResult]) -> dict[str, int]:
    """Ids of runs of which there are finished results that differ, and how many."""
    versions: dict[str, set[str]] = defaultdict(set)
    for result in results:
        if result.finished:
            versions[result.run_id].add(_content(result))
    return {run: len(contents) for run, contents in sorted(versions.items()) if len(contents) > 1}


def _content(result: TrainResult) -> str:
    return json.dumps(encode(result.to_dict()), sort_keys=True)
