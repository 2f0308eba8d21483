"""Figures of a sweep: scores and FD-SNR against rank, dev scores against queries, scores against evaluation noise.

What is not drawn is named under the figure, run by run, so that nothing is left out unseen. No torch.
"""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zo_runner.errors import invalid, one_of
from zo_runner.records.json_files import read_lines
from zo_runner.records.result import TrainResult
from zo_runner.reporting.figures.line_charts import ChartPoint, interval, noise_curve, progress_curve, rank_curve
from zo_runner.reporting.figures.style import save, settings
from zo_runner.reporting.tables.statistics import LEVEL
from zo_runner.tasks.metrics import Metric, metric_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE = "noise.std"


@dataclass(frozen=True)
class Curve:
    """One row of a sweep: all seeds of one configuration.

    Attributes:
        label: name of the row in the legend.
        method: its method's name.
        rank: None for a method without one.
        x: its other coordinates, by dotted key, such as {"noise.std": 1e-4}.
        task: its task's name.
        model: its model's name.
        results: of the seeds that finished with status "done".
        runs: run directories of the same seeds.
        diverged: number of seeds that diverged.
        missing: number of seeds without a finished result.
    """

    label: str
    method: str
    rank: int | None
    x: Mapping[str, Any]
    task: str
    model: str
    results: Sequence[TrainResult]
    runs: Sequence[Path]
    diverged: int
    missing: int


def progress(runs: Iterable[Path], key: str) -> list[ChartPoint]:
    """A dev score against queries: the mean over seeds at the query counts that all of them share.

    Args:
        runs: run directories of one row's seeds. One whose metrics.jsonl does not hold the key does not count.
        key: as in metrics.jsonl, such as "dev/loss".
    """
    return _shared([_history(run, key) for run in runs])


def _history(run: Path, key: str) -> dict[float, float]:
    """Queries -> value, NaN for what is no number; empty where the file is missing or broken."""
    try:
        events = [event for event in read_lines(run / "metrics.jsonl") if key in event]
    except (OSError, ValueError):
        return {}
    values = {_number(event.get("queries")): _number(event[key]) for event in events}
    return values if all(map(math.isfinite, values)) else {}


def _number(value: Any) -> float:
    """A number, where a float can hold it; NaN for anything else, True included."""
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.nan


def _shared(histories: Iterable[Mapping[float, float]]) -> list[ChartPoint]:
    if not (kept := [history for history in histories if history]):
        return []
    values = {x: [history[x] for history in kept] for x in sorted(set.intersection(*map(set, kept)))}
    return [ChartPoint(x, *interval(seeds), len(kept)) for x, seeds in values.items() if all(map(math.isfinite, seeds))]


def figures(rows: Sequence[Curve], folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write one figure per kind, task and model, each as PNG and SVG, named `<kind>-<task>-<model>`.

    A kind whose coordinate no row has (a rank, a noise) is left out.

    Args:
        rows: of any tasks and models.
        folder: made if need be.
        kinds: of "rank", "fd_snr_rank", "loss_queries", "accuracy_queries", "noise".

    Returns:
        The files written.

    Raises:
        UserError: an unknown kind.
    """
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        raise invalid("figures", unknown[0], one_of(_KINDS))
    groups: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.model].append(row)
    drawn: dict[str, Figure] = {}
    with settings():
        for kind in dict.fromkeys(kinds):
            for (task, model), members in sorted(groups.items()):
                figure = _KINDS[kind](members)
                if figure is not None:
                    # The names come from files that anybody may have written, and must stay in the folder.
                    name = re.sub(r"[^\w.-]+", "-", f"{kind}-{task}-{model}")
                    drawn[_unused(name, drawn, "{}.{}")] = figure
        if drawn:
            folder.mkdir(parents=True, exist_ok=True)
        return [file for name, figure in drawn.items() for file in save(figure, folder, name)]


def _unused(name: str, taken: Container[str], form: str) -> str:
    """`name`, with a number where it is taken."""
    names = (form.format(name, number) for number in itertools.count(2))
    return name if name not in taken else next(other for other in names if other not in taken)


class _Notes:
    """Rows that are not drawn, by reason, with the number of their runs."""

    def __init__(self, rows: Iterable[Curve]) -> None:
        self._found: dict[str, Counter[str]] = defaultdict(Counter)
        self._runs: Counter[str] = Counter()
        for row in rows:
            self._runs[row.label] += len(row.results) + row.diverged + row.missing
            self.add("diverged, not averaged", row, row.diverged)
            self.add("missing", row, row.missing)

    def add(self, reason: str, row: Curve, count: int) -> None:
        if count:
            self._found[reason][row.label] += count

    def text(self, points: Iterable[ChartPoint]) -> str:
        """A line on the means drawn, then one for each reason."""
        counts = sorted({point.n for point in points})
        lines = []
        if counts == [1]:
            lines.append("Single seeds, so without intervals.")
        elif counts:
            seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
            lines.append(f"Means over {seeds}; bands are {LEVEL:.0%} t-intervals.")
        for reason, found in self._found.items():
            places = ", ".join(f"{label} ({count} of {self._runs[label]})" for label, count in found.items())
            lines.append(f"{reason[0].upper()}{reason[1:]}: {places}.")
        return "\n".join(lines)


def _metric(rows: Sequence[Curve]) -> Metric:
    return metric_of(next((result.metric for row in rows for result in row.results), "score"))


def _mean(row: Curve, x: float, values: Sequence[float], what: str, notes: _Notes) -> ChartPoint | None:
    finite = [value for value in values if math.isfinite(value)]
    notes.add(f"without a finite {what}", row, len(values) - len(finite))
    return ChartPoint(x, *interval(finite), len(finite)) if finite else None


def _test_best(rows: Sequence[Curve], axis: str, draw: Callable[..., "Figure"]) -> "Figure | None":
    metric = _metric(rows)

    def read(row: Curve, x: float, notes: _Notes) -> ChartPoint | None:
        found = [result.score("test", "best", metric.name) for result in row.results]
        scaled = [math.nan if value is None else value * metric.scale for value in found]
        return _mean(row, x, scaled, f"test {metric.words}", notes)

    return _against(rows, axis, read, draw, f"test {metric.axis}, best on dev")


def _fd_snr(rows: Sequence[Curve]) -> "Figure | None":
    infinite = {math.inf: "infinite FD-SNR (no noise)", -math.inf: "no signal above the noise (-∞ dB)"}

    def read(row: Curve, x: float, notes: _Notes) -> ChartPoint | None:
        values = [result.fd_snr_db for result in row.results]
        for value, reason in infinite.items():
            notes.add(f"not drawn, {reason}", row, values.count(value))
        # A mean with an infinite value is infinite; a mean of the others would be too favourable.
        return None if set(values) & set(infinite) else _mean(row, x, values, "FD-SNR", notes)

    return _against(rows, "rank", read, rank_curve, "FD-SNR at the end of training (dB)")


def _against(
    rows: Sequence[Curve],
    axis: str,
    read: Callable[[Curve, float, _Notes], ChartPoint | None],
    draw: Callable[..., "Figure"],
    ylabel: str,
) -> "Figure | None":
    """The figure of one value per row against a coordinate; None where no row has the coordinate."""
    if all(_coordinates(row).get(axis) is None for row in rows):
        return None
    notes, methods = _Notes(rows), {}
    series: dict[str, list[ChartPoint]] = {}
    for name, members in _lines_along(rows, axis):
        label, points = _unused(name, series, "{} ({})"), []
        for row in members:
            x = _coordinates(row).get(axis)
            if x is None and axis != "rank":
                notes.add(f"not drawn, without {axis}", row, len(row.results))
            elif (point := read(row, math.nan if x is None else float(x), notes)) is not None:
                points.append(point)
        if points:
            series[label], methods[label] = points, members[0].method
    note = notes.text(point for points in series.values() for point in points)
    return draw(series, ylabel=ylabel, title=_title(rows), methods=methods, note=note)


def _queries(rows: Sequence[Curve], key: str, factor: float, ylabel: str) -> "Figure":
    notes, methods = _Notes(rows), {}
    series: dict[str, list[ChartPoint]] = {}
    methods_in_order = list(dict.fromkeys(row.method for row in rows))
    ordered = sorted(rows, key=lambda row: (methods_in_order.index(row.method), row.rank or 0))
    for row in ordered:
        label = _unused(row.label, series, "{} ({})")
        histories = [_history(run, key) for run in row.runs]
        notes.add(f"without {key} in metrics.jsonl", row, histories.count({}))
        broken = [not all(map(math.isfinite, history.values())) for history in histories]
        notes.add(f"{key} not always finite, drawn where it is", row, sum(broken))
        points = _shared(histories)
        if not points and any(histories):
            notes.add("not drawn, no finite value at a query count that all seeds share", row, len(histories))
        if points:
            scaled = [replace(p, mean=p.mean * factor, low=p.low * factor, high=p.high * factor) for p in points]
            series[label], methods[label] = scaled, row.method
    note = notes.text(point for points in series.values() for point in points)
    return progress_curve(series, ylabel=ylabel, title=_title(rows), methods=methods, note=note)


def _metric_against_queries(rows: Sequence[Curve]) -> "Figure":
    metric = _metric(rows)
    return _queries(rows, f"dev/{metric.name}", metric.scale, f"dev {metric.axis}")


_KINDS: dict[str, Callable[[Sequence[Curve]], "Figure | None"]] = {
    "rank": lambda rows: _test_best(rows, "rank", rank_curve),
    "fd_snr_rank": _fd_snr,
    "loss_queries": lambda rows: _queries(rows, "dev/loss", 1.0, "dev loss"),
    "accuracy_queries": _metric_against_queries,
    "noise": lambda rows: _test_best(rows, NOISE, noise_curve),
}
KINDS = tuple(_KINDS)


def _title(rows: Sequence[Curve]) -> str:
    return f"{rows[0].task}, {rows[0].model}"


def _coordinates(row: Curve) -> dict[str, Any]:
    return {"rank": row.rank, **row.x}


def _lines_along(rows: Sequence[Curve], axis: str) -> Iterator[tuple[str, list[Curve]]]:
    """Rows that only the axis sets apart, under the method's name and whatever else differs within the method."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for key, value in _coordinates(row).items():
            values[row.method, key].add(repr(value))
    lines: dict[str, list[Curve]] = defaultdict(list)
    for row in rows:
        others = [(key, value) for key, value in _coordinates(row).items() if key != axis]
        parts = [f"{key}={_short(value)}" for key, value in others if len(values[row.method, key]) > 1]
        lines[" ".join([row.method, *parts])].append(row)
    for label, members in lines.items():
        places = {_coordinates(row).get(axis) for row in members}
        if len(places) == len(members):
            yield label, members
        else:  # something sets them apart that is no coordinate: a line would join what does not belong together
            yield from ((row.label, [row]) for row in members)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
