"""Figures hold the numbers of the table, say what they leave out, and come out the same every time."""

import io
import math

import numpy as np
import pandas as pd
import pytest

from zo_runner.reporting.figures import probe_figures
from zo_runner.reporting.probe_statistics import THEORY

RANKS = (1, 4, 16, 64)


def summary_of(*, noise=0.25, rms=1.4, sign=True, kinds=tuple(THEORY)):
    """A summary as the report makes it, with theory's numbers."""
    rows = []
    for atoms, scaling in kinds:
        for rank in RANKS:
            signal = (rms * rank ** THEORY[atoms, scaling]) ** 2
            ratio = signal / noise if noise else math.inf
            row = {"atoms": atoms, "scaling": scaling, "rank": rank, "noise": noise, "signal": signal}
            row |= {"fd_snr_db": 10 * math.log10(ratio) if noise else math.inf}
            row |= {"sign_agreement": 0.8 if sign else math.nan, "sign_expected": 0.75}
            for name in ("signal", "fd_snr_db", "sign_agreement"):
                row |= {f"{name}_low": row[name] * 0.9, f"{name}_high": row[name] * 1.1}
            rows.append(row)
    return pd.DataFrame(rows)


def lines(figure):
    """label -> the numbers drawn."""
    (axes,) = figure.axes
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def label(atoms, scaling):
    return f"{'one atom' if atoms == 'one' else 'all atoms'}, s = {probe_figures.SCALES[scaling]}"


def note(figure):
    return figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    ("draw", "column", "shown"),
    [
        (probe_figures.signal_figure, "signal", math.sqrt),
        (probe_figures.fd_snr_figure, "fd_snr_db", float),
        (probe_figures.sign_figure, "sign_agreement", float),
    ],
)
def test_lines_and_bands_hold_the_numbers(draw, column, shown):
    frame = summary_of()
    figure = draw(frame)
    (axes,) = figure.axes
    drawn = lines(figure)
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "rank r")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4", "16", "64"]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    for band, (atoms, scaling) in zip(axes.collections, THEORY, strict=True):
        rows = frame[(frame["atoms"] == atoms) & (frame["scaling"] == scaling)]
        ranks, values = drawn[label(atoms, scaling)]
        assert ranks == list(RANKS)
        assert values == pytest.approx([shown(value) for value in rows[column]])
        corners = {(x, round(y, 9)) for x, y in band.get_paths()[0].vertices}
        for end in ("low", "high"):
            ends = zip(rows["rank"], rows[f"{column}_{end}"], strict=True)
            assert {(rank, round(shown(value), 9)) for rank, value in ends} <= corners
        assert label(atoms, scaling) in legend
    assert note(figure) == ""
    by_label = {line.get_label(): line for line in axes.get_lines()}
    for scaling in probe_figures.SCALES:  # kinds of query are told apart without colour
        one, every = by_label[label("one", scaling)], by_label[label("all", scaling)]
        assert one.get_color() == every.get_color() == probe_figures.COLOURS[scaling]
        assert one.get_marker() != every.get_marker()


@pytest.mark.parametrize("kind", list(THEORY))
def test_theory_goes_through_the_first_point_and_noise_is_a_floor(kind):
    frame = summary_of(kinds=[kind])
    (sign,) = probe_figures.sign_figure(frame).axes
    drawn = {line.get_linestyle(): list(line.get_ydata()) for line in sign.get_lines() if len(line.get_ydata())}
    assert (set(drawn[":"]), drawn["--"]) == ({0.5}, [0.75] * 4)  # chance and expectation
    frame.loc[frame["rank"] > 1, "signal"] = 7.0  # so that line and theory part
    (axes,) = probe_figures.signal_figure(frame).axes
    assert axes.get_yscale() == "log"
    assert "loss per unit direction" in axes.get_ylabel()
    (theory,) = [line for line in axes.get_lines() if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert list(theory.get_ydata()) == pytest.approx([1.4 * rank ** THEORY[kind] for rank in RANKS])
    (floor,) = [line for line in axes.get_lines() if line.get_label() == "noise"]
    assert list(floor.get_ydata()) == [0.5] * 4


def test_infinite_ratios_are_counted_not_drawn():
    frame = summary_of()
    frame.loc[[0, 7], "fd_snr_db"] = math.inf
    frame.loc[3, "fd_snr_db"] = -math.inf
    frame.loc[4, "fd_snr_db_low"] = -math.inf
    figure = probe_figures.fd_snr_figure(frame)
    drawn = lines(figure)
    assert all(np.isfinite(values).all() for _, values in drawn.values())
    assert drawn[label("one", "canonical")][0] == [4, 16]
    assert note(figure) == (
        "Not drawn: 2 points with infinite FD-SNR (no noise)\nand 1 point without signal above the noise (-∞ dB)"
    )
    low, high = figure.axes[0].get_ylim()  # the band reaches below the axis, which follows the numbers
    assert -60 < low < high < 60


def test_a_lost_signal_is_counted_and_a_band_may_reach_zero():
    frame = summary_of()
    frame.loc[3, ["signal", "signal_low"]] = 0.0
    frame.loc[2, "signal_low"] = 0.0
    figure = probe_figures.signal_figure(frame)
    assert lines(figure)[label("one", "canonical")][0] == [1, 4, 16]
    assert note(figure) == "Not drawn: 1 point without signal above the noise"
    assert figure.axes[0].get_ylim()[0] > 0.01


def test_nothing_that_can_be_drawn_leaves_a_note_and_no_scale():
    silent = summary_of(noise=0.0)
    lost = summary_of(rms=0.0, noise=0.0).assign(fd_snr_db=math.nan)
    for draw, frame, missing in (
        (probe_figures.fd_snr_figure, silent, "with infinite FD-SNR (no noise)"),
        (probe_figures.fd_snr_figure, lost, "undefined"),
        (probe_figures.signal_figure, lost, "without signal above the noise"),
    ):
        figure = draw(frame)
        figure.savefig(io.BytesIO())
        assert note(figure) == f"Not drawn: 24 points {missing}"
        if frame is silent:
            assert (lines(figure), figure.legends, list(figure.axes[0].get_yticks())) == ({}, [], [])
    figure = probe_figures.signal_figure(silent)  # slopes without noise have no floor
    assert ("noise" in lines(figure), note(figure)) == (False, "")


def test_without_exact_derivatives_there_is_no_sign_figure(tmp_path):
    (tmp_path / "sign_agreement.png").write_bytes(b"of an earlier report")
    files = probe_figures.rank_figures(summary_of(kinds=[("one", "canonical")], noise=0.0, sign=False), tmp_path)
    assert sorted(file.name for file in files) == ["fd_snr.png", "fd_snr.svg", "signal.png", "signal.svg"]
    assert set(tmp_path.iterdir()) == set(files)
