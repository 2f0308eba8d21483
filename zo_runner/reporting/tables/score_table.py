"""The main table of a task and a model: scores, comparison with the baseline, and their price. No torch.

Nothing in it depends on the machine: seconds and bytes stand in the table of costs.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from zo_runner.reporting.tables.aggregate import SHOWN, ResultRow, differing, labels
from zo_runner.reporting.tables.comparability import granted_differences
from zo_runner.reporting.tables.formats import number
from zo_runner.reporting.tables.spec import Protocol, Search
from zo_runner.reporting.tables.statistics import counterpart, interval, mean_sd, paired, scores_by_seed
from zo_runner.tasks.metrics import Metric, metric_of

# column -> split and point of a result's metrics, and its title
SCORES = {
    "zero_shot_dev": ("dev", "zero_shot", "zero-shot dev"),
    "dev_best": ("dev", "best", "dev (best)"),
    "test_best": ("test", "best", "test (best)"),
    "test_last": ("test", "last", "test (last)"),
}
TROUBLE = ("diverged", "invalid", "missing")
_SMALLEST_P = 0.001


def numbers(
    rows: Sequence[ResultRow], protocol: Protocol | None = None, unmatched: Collection[str] = ()
) -> pd.DataFrame:
    """One line per row, every number in a column of its own; NaN where there is none.

    `<name>_sd` is a sample standard deviation, `<name>_low` and `<name>_high` limits of the mean, over the n seeds of
    `done`. Units: scores as the task's metric has them (from 0 to 1, or perplexity), FD-SNR in dB.

    Args:
        rows: of one task and model.
        protocol: what to pair them with, and what finding them cost.
        unmatched: keys of rows that share a table with the others by request only; they are not paired.
    """
    protocol = protocol or Protocol()
    frame = leading(rows, protocol, unmatched)
    for kind in TROUBLE:
        frame[kind] = [row.missing if kind == "missing" else len(getattr(row, kind)) for row in rows]
    for name, (split, point, _) in SCORES.items():
        values = [list(scores_by_seed(row, split, point).values()) for row in rows]
        _spread(frame, name, values)
        frame[f"{name}_low"], frame[f"{name}_high"] = zip(*map(interval, values), strict=True)
    if protocol.baseline is not None:
        frame = frame.join(_paired(rows, protocol.baseline, unmatched))
    frame["queries"] = [mean_sd([result.charged("queries") for result in row.done])[0] for row in rows]
    for name in ("configurations", "seeds", "queries"):
        found = (protocol.searches.get(row.key) for row in rows)
        frame[f"search_{name}"] = [getattr(search, name) if search else 0 for search in found]
    _spread(frame, "fd_snr_db", [[result.fd_snr_db for result in row.done] for row in rows])
    return frame


def _spread(frame: pd.DataFrame, name: str, values: Sequence[Sequence[float]]) -> None:
    frame[name], frame[f"{name}_sd"] = zip(*map(mean_sd, values), strict=True)


def leading(rows: Sequence[ResultRow], protocol: Protocol, unmatched: Collection[str] = ()) -> pd.DataFrame:
    """The first columns: method, rank, whatever else sets rows apart, what was tuned, and the number of seeds."""
    searches: list[Mapping[str, Any]] = [getattr(protocol.searches.get(row.key), "chosen", {}) for row in rows]
    extra = _differing(rows)
    tuned = sorted({key for chosen in searches for key in chosen} - {*extra, *SHOWN})
    lines = []
    for row, chosen in zip(rows, searches, strict=True):
        line: dict[str, Any] = {"method": row.method, "rank": row.rank}
        line |= {key: row.identity.get(key) for key in extra}
        line |= {name: _used(row, name) for name in ("lr", "eps")}
        line |= {key: row.identity.get(key, chosen.get(key)) for key in tuned}
        lines.append(line | {"n": len(row.done)})
    frame = pd.DataFrame(lines)
    frame["rank"] = frame["rank"].astype("Int64")
    if protocol.allow_unmatched:
        frame["unmatched"] = [row.key in unmatched for row in rows]
    return frame


def _differing(rows: Sequence[ResultRow]) -> list[str]:
    """Further keys that set rows of one method apart, or that all should share, and so must be seen."""
    by_method: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)
    found = {key for members in by_method.values() for key in differing(members)}
    return sorted({*found, *granted_differences(rows)} - set(SHOWN))


def _used(row: ResultRow, name: str) -> Any:
    """A number, or "auto" with the mean of what the seeds' calibrations chose."""
    given = row.identity.get(f"method.{name}")
    values = [value for result in (*row.done, *row.diverged) if math.isfinite(value := result.amount(name))]
    return f"{given}: {mean_sd(values)[0]:.2g}" if given == "auto" and values else given


def compared(rows: Sequence[ResultRow]) -> str:
    """The column that rows are paired on: test at the best point on dev, or that point of dev where test is unread."""
    return "test_best" if any(scores_by_seed(row, "test", "best") for row in rows) else "dev_best"


def _paired(rows: Sequence[ResultRow], baseline: str, unmatched: Collection[str]) -> pd.DataFrame:
    """Every row against its row of the baseline; `unpaired` says why there is none."""
    split, point, _ = SCORES[compared(rows)]
    lines = []
    for row in rows:
        other = counterpart(row, rows, baseline)
        if isinstance(other, ResultRow) and {row.key, other.key} & set(unmatched):
            other = f"it and its row of {baseline} do not match"
        ours, theirs = (scores_by_seed(one, split, point) if isinstance(one, ResultRow) else {} for one in (row, other))
        higher = all(metric_of(result.metric).higher_is_better for result in row.done)
        found = paired(ours, theirs, higher_is_better=higher)
        unpaired = other if isinstance(other, str) else ("" if found.n else "they share no seed with a score")
        names = ("n", "wins", "ties", "losses", "difference", "low", "high", "p")
        line = {"paired_with": baseline, "paired_on": compared(rows)}
        lines.append(line | {f"paired_{name}": getattr(found, name) for name in names} | {"unpaired": unpaired})
    return pd.DataFrame(lines)


def notes(rows: Sequence[ResultRow], frame: pd.DataFrame, protocol: Protocol) -> list[str]:
    """Sentences below the table: invalid runs, pairs, searches."""
    called = labels(rows)
    invalid = [(called[row.key], what) for row in rows for what in (*row.clashes, *row.flaws)]
    found = [f"Invalid, and not averaged: {label}: {what}." for label, what in invalid]
    if protocol.baseline is not None:
        found.append(
            f"Against {protocol.baseline}: seeds on which the row is better / as good / worse on "
            f"{SCORES[compared(rows)][2]}, the mean difference with its 95 % t-interval, and the p of the two-sided "
            "paired t-test, not corrected for the number of rows."
        )
        for row, why in zip(rows, frame["unpaired"], strict=True):
            if why not in ("", "baseline"):
                found.append(f"Not paired: {called[row.key]}: {why}.")
    found += _search_notes(rows, protocol.searches)
    return found


def _search_notes(rows: Sequence[ResultRow], searches: Mapping[str, Search]) -> Iterator[str]:
    called, sizes = labels(rows), defaultdict(list)
    for row in rows:
        search = searches.get(row.key)
        size = f"{search.configurations} on {_seeds(search.seeds)}" if search else "none"
        sizes[size].append(called[row.key])
    if len(sizes) > 1:
        told = "; ".join(f"{size}: {', '.join(names)}" for size, names in sorted(sizes.items()))
        yield f"Rows did not try the same number of configurations ({told})."


def texts(frame: pd.DataFrame, metric: Metric, *, baseline: str = "", limits: bool = True) -> pd.DataFrame:
    """The table as a person reads it, with columns of trouble where there is some.

    Args:
        frame: what `numbers` returns.
        metric: the task's first metric.
        baseline: what the rows are paired with.
        limits: True to write the limits of a mean beside it.
    """
    shown = leading_texts(frame)
    shown |= {kind: [str(count) for count in frame[kind]] for kind in TROUBLE if frame[kind].any()}
    rows = frame.to_dict("records")
    for name, (_, _, title) in SCORES.items():
        first, *rest = title.rsplit(" (", 1)
        shown[" (".join([f"{first} {metric.unit}", *rest])] = [_score(row, name, metric, limits) for row in rows]
    if "unpaired" in frame:
        shown |= _paired_texts(rows, baseline, metric)
    shown["queries"] = [number(row["queries"], ".0f") for row in rows]
    shown["search cost"] = [_search(row) for row in rows]
    shown["FD-SNR dB"] = [_mean_sd(row["fd_snr_db"], row["fd_snr_db_sd"], "z.1f") for row in rows]
    return pd.DataFrame(shown)


def leading_texts(frame: pd.DataFrame) -> dict[str, list[str]]:
    """The columns up to n; a row that does not match the others has an asterisk."""
    names = list(frame.columns)
    shown = {name: [_plain(value) for value in frame[name]] for name in names[: names.index("n") + 1]}
    if "unmatched" in frame:
        pairs = zip(shown["method"], frame["unmatched"], strict=True)
        shown["method"] = [f"{method} *" if odd else method for method, odd in pairs]
    return shown


def _plain(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _score(row: Mapping[Any, Any], name: str, metric: Metric, limits: bool) -> str:
    mean, sd, low, high = (row[f"{name}{end}"] * metric.scale for end in ("", "_sd", "_low", "_high"))
    if math.isnan(mean):
        # A row whose runs did not finish says so; one whose test was not read has nothing to say.
        return "-" if row["n"] else next((kind for kind in TROUBLE if row[kind]), "-")
    form = f"z.{metric.digits}f"
    ends = f" [{number(low, form)}, {number(high, form)}]" if limits and not math.isnan(low) else ""
    return _mean_sd(mean, sd, form) + ends


def _mean_sd(mean: float, sd: float, form: str) -> str:
    return number(mean, form) + ("" if math.isnan(sd) else f" ± {number(sd, form)}")


def _paired_texts(rows: Sequence[Mapping[Any, Any]], baseline: str, metric: Metric) -> dict[str, list[str]]:
    scale = metric.scale
    counts, differences, chances = [], [], []
    for row in rows:
        low, high, form = row["paired_low"], row["paired_high"], f"+z.{metric.digits}f"
        ends = "" if math.isnan(low) else f" [{number(low * scale, form)}, {number(high * scale, form)}]"
        differences.append(number(row["paired_difference"] * scale, form) + ends)
        record = f"{row['paired_wins']}/{row['paired_ties']}/{row['paired_losses']}"
        counts.append(record if row["paired_n"] else ("baseline" if row["unpaired"] == "baseline" else "-"))
        chances.append(f"<{_SMALLEST_P}" if row["paired_p"] < _SMALLEST_P else number(row["paired_p"], ".3f"))
    return {f"W/T/L against {baseline}": counts, "difference": differences, "p": chances}


def _search(row: Mapping[Any, Any]) -> str:
    if not row["search_configurations"]:
        return "-"
    return f"{row['search_configurations']} × {_seeds(row['search_seeds'])} = {row['search_queries']} queries"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
