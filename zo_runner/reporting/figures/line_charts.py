"""Charts of means over seeds: against rank, queries or evaluation noise. No torch.

A line is a mean over seeds, a band its 95 % t-interval. A colour is a method; line style and marker set apart methods
that share one, and lines of one method. matplotlib is imported when a chart is drawn; draw within `style.settings`.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from zo_runner.reporting.tables import statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# A method's place decides how it looks, so new ones are added at the end. Others follow in alphabetical order.
METHODS = (
    *("ar1zo", "lora_zo", "naive_atom", "mezo", "lozo", "lozo_m", "subzero", "hizoo", "fzoo"),
    *("zo_sgd_momentum", "zo_adam", "zo_sign", "fo_sgd", "fo_adamw", "adaprelora"),
)
# Okabe and Ito, Color Universal Design (2008), without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_REST = "#666666"  # notes and helping lines
_AXES = (5.2, 4.0)  # inches, without legend and note
_PAD = 0.08  # inches around everything
_LEGEND = 34  # characters in a line of the legend
_MARKED = 12  # markers on a line
_FEW = 6  # lines whose bands can be told apart


@dataclass(frozen=True)
class ChartPoint:
    """A mean over n seeds at x, with its t-interval, which has no width for n = 1.

    Attributes:
        x: rank, queries or noise; NaN for a method without a rank.
        mean: in the unit of the axis.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of seeds.
    """

    x: float
    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and both ends of its 95 % t-interval over seeds; a single value is its own interval.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"Invalid values: {list(values)!r}. Must be at least one, all finite.")
    mean, sd = statistics.mean_sd(values)
    return (mean, mean, mean) if math.isnan(sd) else (mean, *statistics.interval(values))


def rank_curve(
    series: Mapping[str, Sequence[ChartPoint]],
    *,
    ylabel: str,
    title: str,
    methods: Mapping[str, str] | None = None,
    note: str = "",
) -> "Figure":
    """One line per label against the rank; a point at x = NaN has no rank and is a horizontal line.

    Args:
        series: points by label.
        ylabel: with its unit.
        title: of the figure.
        methods: the method of each label, where the label is not its name.
        note: stands under the figure.
    """
    figure, axes = _draw(series, ylabel=ylabel, title=title, methods=methods, note=note)
    ranks = sorted({point.x for points in series.values() for point in points if point.x > 0})
    axes.set_xlabel("rank r")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
    axes.minorticks_off()
    if ranks:
        axes.set_xlim(ranks[0] / 1.4, ranks[-1] * 1.4)
    return figure


def progress_curve(
    series: Mapping[str, Sequence[ChartPoint]],
    *,
    ylabel: str,
    title: str,
    methods: Mapping[str, str] | None = None,
    note: str = "",
) -> "Figure":
    """One line per label against charged queries; arguments as for `rank_curve`."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure, axes = _draw(series, ylabel=ylabel, title=title, methods=methods, note=note)
    axes.set_xlabel("queries, training and calibration")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def noise_curve(
    series: Mapping[str, Sequence[ChartPoint]],
    *,
    ylabel: str,
    title: str,
    methods: Mapping[str, str] | None = None,
    note: str = "",
) -> "Figure":
    """One line per label against the noise of an evaluation, logarithmic but for 0, which stands at the left edge."""
    figure, axes = _draw(series, ylabel=ylabel, title=title, methods=methods, note=note)
    stds = sorted({point.x for points in series.values() for point in points if point.x >= 0})
    axes.set_xlabel("standard deviation σ of the noise of one evaluation (loss)")
    positive = [std for std in stds if std > 0]
    if positive:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.7)
        axes.set_xlim(-0.12 * positive[0] if stds[0] == 0 else positive[0] / 1.4, positive[-1] * 1.4)
    if positive and stds[0] == 0:  # between 0 and the smallest σ the axis is not logarithmic
        axes.axvline(positive[0] / 2, linestyle=":", linewidth=1, color=_REST, zorder=0)
    axes.set_xticks(stds, [np.format_float_scientific(std, trim="-", exp_digits=1) if std else "0" for std in stds])
    axes.minorticks_off()
    return figure


def looks(methods: Sequence[str]) -> list[dict[str, Any]]:
    """Colour, line style and marker of each line, given its method; no two of a figure are the same.

    A method always has the same colour, and its first line always looks the same. That holds for up to 21 methods with
    up to 9 lines each.
    """
    places = {name: place for place, name in enumerate((*METHODS, *sorted(set(methods) - set(METHODS))))}
    seen: Counter[str] = Counter()
    found = []
    for method in methods:
        place, line = places[method], seen[method]
        seen[method] += 1
        found.append(
            {
                "color": COLOURS[place % len(COLOURS)],
                "linestyle": LINES[(place // len(COLOURS) + line) % len(LINES)],
                "marker": MARKERS[(place + line) % len(MARKERS)],
            }
        )
    return found


def _draw(
    series: Mapping[str, Sequence[ChartPoint]],
    *,
    ylabel: str,
    title: str,
    methods: Mapping[str, str] | None,
    note: str,
) -> tuple["Figure", "Axes"]:
    """A figure large enough for its legend and note, with every line in it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = {label: textwrap.fill(_plain(label), _LEGEND) for label in series}
    wide = max((len(line) for name in names.values() for line in name.split("\n")), default=0)
    width = _AXES[0] + 0.085 * wide + (0.8 if wide else 0)
    lines = [part for line in note.split("\n") for part in textwrap.wrap(_plain(line), int(width * 14))]
    height = max(_AXES[1], 0.17 * sum(name.count("\n") + 1.2 for name in names.values())) + 0.16 * len(lines)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD))
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(_plain(title), int(width * 9)), loc="left", fontsize=10)
    axes.set_ylabel(_plain(ylabel))
    axes.grid(visible=True, linewidth=0.5, alpha=0.4)
    handles = []
    alpha = 0.15 if len(series) <= _FEW else 0.07  # bands over bands hide the lines
    drawn: list[ChartPoint] = []
    styles = looks([(methods or {}).get(label, label) for label in series])
    for (_label, points), look in zip(series.items(), styles, strict=True):
        shown = [point for point in points if math.isfinite(point.mean)]
        handles.append(_line(axes, shown, look, alpha))
        drawn += shown
    if lost := sum(map(len, series.values())) - len(drawn):
        lines.append(f"Not drawn: {lost} point{'s' if lost > 1 else ''} outside the axis' numbers.")
    _limit(axes, drawn)
    if handles:
        figure.legend(handles, names.values(), loc="outside right upper", frameon=False, fontsize=9, handlelength=3)
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=_REST)
    return figure, axes


def _line(axes: "Axes", points: Sequence[ChartPoint], look: Mapping[str, Any], alpha: float) -> "Line2D":
    """One line with its band; returns what stands for it in the legend."""
    placed = sorted((point for point in points if not math.isnan(point.x)), key=lambda point: point.x)
    faint: dict[str, Any] = {"color": look["color"], "alpha": alpha, "linewidth": 0}
    for point in points:
        if math.isnan(point.x):
            line = axes.axhline(point.mean, color=look["color"], linestyle=look["linestyle"])
            if point.n > 1:
                axes.axhspan(point.low, point.high, **faint)
    if placed or not points:
        x, means = [point.x for point in placed], [point.mean for point in placed]
        (line,) = axes.plot(x, means, markersize=5, markevery=1 + len(x) // _MARKED, **look)
    for several, group in groupby(placed, key=lambda point: point.n > 1):
        x, lows, highs = (list(ends) for ends in zip(*((p.x, p.low, p.high) for p in group), strict=True))
        if several and len(x) > 1:
            axes.fill_between(x, lows, highs, **faint)
        elif several:  # a band of one point would have no width
            axes.vlines(x, lows, highs, color=look["color"], alpha=0.5, linewidth=1.5)
    return line


def _limit(axes: "Axes", points: Sequence[ChartPoint]) -> None:
    """Let the axis hold every mean, and bands as far as they leave the means a third of it.

    A t-interval of two seeds may be many times wider than all differences between lines.
    """
    if not points:
        axes.set_yticks([])
        return
    means = [point.mean for point in points]
    ends = [end for point in points for end in (point.low, point.high) if math.isfinite(end)]
    low, high = min(means), max(means)
    room = high - low or math.inf
    low, high = max(min([*ends, low]), low - room), min(max([*ends, high]), high + room)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _plain(text: str) -> str:
    """Text on one line, in which no dollar begins a formula."""
    return " ".join(text.split()).replace("$", r"\$")
