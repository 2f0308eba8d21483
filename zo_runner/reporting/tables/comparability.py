"""Conditions that rows of one table must share, and reasons why some rows cannot be compared. No torch."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.records.result import TrainResult
from zo_runner.reporting.tables.aggregate import ResultRow, differing, flatten, labels

# Parts of a run's identity that all rows of a table must share.
GRANTED = ("task", "model", "budget", "batch_size", "runtime")

# A run with a budget of seconds looks at the clock between steps. So much over it is let pass: a share of the budget,
# some steps of median length (the first one warms up), or the calibration, whichever is most.
_OVER = 0.1
_STEPS_OVER = 10

_Key = TypeVar("_Key")

_LONGEST = 80  # characters of a value in a sentence


@dataclass(frozen=True)
class Problem:
    """A reason why rows cannot be compared.

    Attributes:
        reason: a sentence without its end.
        hint: what to do; empty where there is nothing to choose.
        rows: keys of the rows that it sets apart from the rest.
    """

    reason: str
    hint: str
    rows: frozenset[str]


def refusal(found: Sequence[Problem]) -> str:
    """The sentences about a table that is not made."""
    hints = dict.fromkeys(problem.hint for problem in found if problem.hint)
    return " ".join(["No table:", "; ".join(problem.reason for problem in found) + ".", *hints])


def problems(rows: Sequence[ResultRow], match: str | None = None) -> list[Problem]:
    """Everything that keeps rows of one task and model from being compared.

    Args:
        rows: of one section.
        match: the unit of the budget that all must have been granted; None for whichever it is.
    """
    return [*_granted(rows), *_unit(rows, match), *_facts(rows), *_clashes(rows), *_overspent(rows)]


def granted_differences(rows: Sequence[ResultRow]) -> list[str]:
    """Keys of the identity that all rows must share and do not."""
    return [key for key in differing(rows) if key.split(".")[0] in GRANTED]


def _granted(rows: Sequence[ResultRow]) -> Iterator[Problem]:
    if not (keys := granted_differences(rows)):
        return
    told, odd = [], set()
    for key in keys:
        values = {row.key: json.dumps(row.identity.get(key)) for row in rows}
        told.append(f"{key} ({', '.join(sorted(map(_short, set(values.values()))))})")
        odd |= _apart(values)
    yield Problem(
        f"its rows differ in {' and '.join(told)}, so they cannot be compared",
        f"Choose one with zo-run job=table {keys[0]}=...",
        frozenset(odd),
    )


def _apart(values: Mapping[_Key, str]) -> set[_Key]:
    """Keys whose value is not the one that most have; of equally many the first counts."""
    usual, _ = Counter(values.values()).most_common(1)[0]
    return {key for key, value in values.items() if value != usual}


def _unit(rows: Sequence[ResultRow], match: str | None) -> Iterator[Problem]:
    without = [row for row in rows if match and row.identity.get(f"budget.{match}") is None]
    if without:
        called = labels(rows)
        names = ", ".join(called[row.key] for row in without)
        reason = f"its rows are to share budget.{match}, which was not granted to {names}"
        yield Problem(reason, "", frozenset(row.key for row in without))


def _facts(rows: Sequence[ResultRow]) -> Iterator[Problem]:
    """Differences in model or data files that were changed in their place, under one identity."""
    runs = {
        (row.key, result.run_id): {"metric": result.metric} | flatten({"provenance": result.provenance})
        for row in rows
        for result in row.done
    }
    for name in sorted({name for facts in runs.values() for name in facts}):
        values = {run: json.dumps(facts[name]) if name in facts else "nothing" for run, facts in runs.items()}
        if odd := sorted(_apart(values)):
            which = ", ".join(f"run {run[1]} has {_short(values[run])}" for run in odd)
            reason = f"its runs differ in {name}, though they were asked for the same ({which}, unlike the rest)"
            hint = "Run them again where there is one model and one data set."
            yield Problem(reason, hint, frozenset(key for key, _ in odd))


def _clashes(rows: Sequence[ResultRow]) -> Iterator[Problem]:
    called = labels(rows)
    for row in rows:
        if row.clashes:
            reason = f"{called[row.key]}: {', '.join(row.clashes)}"
            yield Problem(reason, "A seed counts once: remove the run that is not meant.", frozenset([row.key]))


def _overspent(rows: Sequence[ResultRow]) -> Iterator[Problem]:
    called = labels(rows)
    for row in rows:
        if over := [told for result in row.done if (told := _excess(row, result))]:
            reason = f"{called[row.key]} spent more than its budget ({', '.join(over)})"
            yield Problem(reason, "", frozenset([row.key]))


def _excess(row: ResultRow, result: TrainResult) -> str:
    """The amount that a run spent beyond its budget, in words; "" if it kept to it."""
    for unit in BUDGET_UNITS:
        limit = row.identity.get(f"budget.{unit}")
        if limit is None:
            continue
        slack, seconds = 0.0, result.seconds
        if unit == "seconds":
            steps = _STEPS_OVER * seconds["step_median"]
            slack = max(_OVER * limit, seconds["calibration"], 0.0 if math.isnan(steps) else steps)
        spent = result.charged(unit)
        if not 0 <= spent <= limit + slack:
            return f"run {result.run_id}: {spent:g} of {limit:g} {unit}"
    return ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
