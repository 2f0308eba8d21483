"""Figures of a probe against rank: signal, FD-SNR and sign agreement.

A colour is a scaling, a marker a kind of query.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from zo_runner.reporting.figures.style import save, settings
from zo_runner.reporting.probe_statistics import THEORY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design (2008): told apart with any colour vision.
COLOURS = {"canonical": "#D55E00", "rslora": "#009E73", "topology": "#0072B2"}
SCALES = {"canonical": "α/r", "rslora": "α/√r", "topology": "α"}
MARKERS: dict[str, dict[str, Any]] = {"one": {"marker": "o"}, "all": {"marker": "s", "markerfacecolor": "white"}}
SIZE = (7.0, 4.3)  # inches, legend included
_REST = "#666666"  # theory, noise, chance
_FAR_DOWN = -1e4  # where a band ends that reaches down to -∞ dB, far below any axis


def rank_figures(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write signal, fd_snr and sign_agreement, each as PNG and SVG.

    Args:
        frame: what `probe_report.summary` returns.
        folder: an existing one; a sign_agreement left there goes where there is none now.

    Returns:
        The files written.
    """
    for suffix in ("png", "svg"):
        (folder / f"sign_agreement.{suffix}").unlink(missing_ok=True)
    files = []
    with settings():
        for name, draw in _FIGURES.items():
            figure = draw(frame)
            if figure is not None:
                files += save(figure, folder, name)
    return files


def signal_figure(frame: pd.DataFrame) -> "Figure":
    """sqrt(signal), the RMS slope without noise, log-log; theory through the first point of each line; RMS noise."""
    figure, axes = _canvas(frame, "RMS slope without noise\n(loss per unit direction)")
    drawn: list[float] = []
    roots = {name: np.sqrt(frame[name]) for name in ("signal", "signal_low", "signal_high")}
    roots["signal"] = roots["signal"].where(frame["signal"] > 0)
    for key, rows in _series(frame.assign(**roots)):
        ranks, values = _lines(axes, key, rows, "signal")
        if len(values):
            theory = values[0] * (ranks / ranks[0]) ** THEORY[key]
            axes.plot(ranks, theory, "--", color=COLOURS[key[1]], linewidth=1, alpha=0.8, zorder=1)
            drawn += [*values, *theory]
    noise = np.sqrt(frame.groupby("rank")["noise"].mean())
    if (noise > 0).all():
        axes.plot(noise.index, noise, ":", color=_REST, label="noise")
        drawn += list(noise)
    axes.set_yscale("log")
    if drawn:  # bands may reach down to 0, which a logarithmic axis does not have
        axes.set_ylim(min(drawn) / 2, max(drawn) * 2)
    axes.plot([], [], "--", color=_REST, linewidth=1, label="theory")
    missing = int((~np.isfinite(roots["signal"])).sum())
    _finish(figure, axes, f"{_points(missing)} without signal above the noise" if missing else "")
    return figure


def fd_snr_figure(frame: pd.DataFrame) -> "Figure":
    """FD-SNR in dB; infinite values are counted in a note."""
    figure, axes = _canvas(frame, "FD-SNR (dB)")
    for key, rows in _series(frame):
        _lines(axes, key, rows, "fd_snr_db")
    values = frame["fd_snr_db"]
    drawn = frame[["fd_snr_db", "fd_snr_db_low", "fd_snr_db_high"]].to_numpy()[np.isfinite(values)]
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn):  # bands may reach down to -∞
        axes.set_ylim(drawn.min() - 5, drawn.max() + 5)
    notes = {
        "with infinite FD-SNR (no noise)": int((values == math.inf).sum()),
        "without signal above the noise (-∞ dB)": int((values == -math.inf).sum()),
        "undefined": int(values.isna().sum()),
    }
    _finish(figure, axes, "\nand ".join(f"{_points(count)} {what}" for what, count in notes.items() if count))
    return figure


def sign_figure(frame: pd.DataFrame) -> "Figure | None":
    """Sign agreement with the exact derivative, the agreement that FD-SNR leads to expect, and chance; None if none."""
    if frame["sign_agreement"].isna().all():
        return None
    figure, axes = _canvas(frame, "P[sign slope = sign exact]")
    for key, rows in _series(frame):
        _lines(axes, key, rows, "sign_agreement")
        expected = rows[rows["sign_expected"].notna() & rows["sign_agreement"].notna()]
        axes.plot(expected["rank"], expected["sign_expected"], "--", color=COLOURS[key[1]], linewidth=1, alpha=0.8)
    axes.axhline(0.5, linestyle=":", color=_REST, label="chance")
    axes.plot([], [], "--", color=_REST, linewidth=1, label="expected from FD-SNR")
    missing = int(frame["sign_agreement"].isna().sum())
    _finish(figure, axes, f"{_points(missing)} without exact derivatives" if missing else "")
    return figure


_FIGURES: dict[str, Callable[[pd.DataFrame], "Figure | None"]] = {
    "signal": signal_figure,
    "fd_snr": fd_snr_figure,
    "sign_agreement": sign_figure,
}


def _canvas(frame: pd.DataFrame, label: str) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    ranks = sorted(set(frame["rank"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("rank r")
    axes.set_ylabel(label)
    axes.grid(visible=True, linewidth=0.5, alpha=0.4)
    return figure, axes


def _series(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for key in THEORY:
        rows = frame[(frame["atoms"] == key[0]) & (frame["scaling"] == key[1])].sort_values("rank")
        if len(rows):
            yield key, rows


def _lines(axes: "Axes", key: tuple[str, str], rows: pd.DataFrame, name: str) -> tuple[Any, Any]:
    """One line with its band; returns the ranks and values drawn."""
    rows = rows[np.isfinite(rows[name])]
    ranks, values = rows["rank"].to_numpy(dtype=float), rows[name].to_numpy()
    if not len(rows):
        return ranks, values
    colour, label = COLOURS[key[1]], f"{key[0]} atom{'s' if key[0] == 'all' else ''}, s = {SCALES[key[1]]}"
    axes.plot(ranks, values, color=colour, label=label, **MARKERS[key[0]])
    low, high = rows[f"{name}_low"].clip(lower=_FAR_DOWN), rows[f"{name}_high"]
    axes.fill_between(ranks, low, high, color=colour, alpha=0.15, linewidth=0)
    return ranks, values


def _points(count: int) -> str:
    return f"{count} point{'s' if count > 1 else ''}"


def _finish(figure: "Figure", axes: "Axes", note: str) -> None:
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    else:
        axes.set_yticks([])
    if note:
        axes.set_title(f"Not drawn: {note}", loc="left", fontsize=8, color=_REST)
