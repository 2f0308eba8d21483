"""The probe's report: numbers recomputed by hand or by simulation, limits that cover, verdicts by their rule."""

import dataclasses
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from zo_runner.reporting.probe_report import read_cells, write
from zo_runner.reporting.probe_statistics import ATOMS, SCALINGS, THEORY, Cell, exponents, sign_expected, summary

EPS = 1e-3
RANKS = (1, 4, 16, 64, 256)
GRID = [(atoms, scaling) for atoms in ATOMS for scaling in SCALINGS]


def sigma2_of(noise):
    """The loss noise under which a slope's noise variance is `noise`."""
    return 2 * EPS**2 * noise


def cell(slopes, *, atoms="one", scaling="canonical", rank=4, init=None, exact=None, cosine=None, noise=0.0, eps=EPS):
    init = tuple(range(len(slopes))) if init is None else init
    return Cell(atoms, scaling, rank, eps, tuple(slopes), init, exact, cosine, sigma2_of(noise))


def measured(rng, rms, *, inits=4, per=8, spread=0.0, noise=0.0, **kind):
    """One cell as theory has it: Gaussian slopes whose scale differs a little between initialisations, and noise."""
    scale = rms * np.exp(spread * rng.standard_normal(inits) - spread**2)  # E scale^2 = rms^2
    exact = np.repeat(scale, per) * rng.standard_normal(inits * per)
    slopes = exact + math.sqrt(noise) * rng.standard_normal(inits * per)
    init = tuple(np.repeat(np.arange(inits), per).tolist())
    return cell(slopes.tolist(), init=init, exact=tuple(exact.tolist()), noise=noise, **kind)


def study(rng, kinds=GRID, ranks=RANKS, power=0.0, **options):
    """Cells for every kind and rank; their exponents differ from theory's by `power`."""
    return [
        measured(rng, 1.4 * rank ** (THEORY[kind] + power), atoms=kind[0], scaling=kind[1], rank=rank, **options)
        for kind in kinds
        for rank in ranks
    ]


def report(cells, folder, *, title="A title", facts=None, resamples=20):
    """The Markdown of a report without its figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zo_runner.reporting.probe_report.rank_figures", lambda frame, folder: [])
        return write(cells, folder, title=title, facts=facts or {}, resamples=resamples)


def only(frame):
    (row,) = frame.to_dict("records")
    return row


def by_quantity(frame):
    return {row["quantity"]: row for row in frame.to_dict("records")}


# The cell


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"atoms": "two"}, "Invalid atoms: 'two'. Must be one of one, all."),
        ({"scaling": "alpha"}, "Invalid scaling: 'alpha'. Must be one of canonical, rslora, topology."),
        ({"rank": 0}, "Invalid rank: 0. Must be at least 1."),
        ({"eps": 0.0}, "Invalid eps: 0.0. Must be positive."),
        ({"sigma2": -1.0}, "Invalid sigma2: -1.0. Must be at least 0."),
        ({"slopes": (), "init": ()}, "Invalid slopes: (). Must be at least one."),
        ({"init": (0,)}, "Invalid init: (0,). Must be as long as slopes (2)."),
        ({"exact": (1.0,)}, "Invalid exact: (1.0,). Must be as long as slopes (2)."),
        ({"cosine": (0.1, 0.2)}, "Invalid cosine: (0.1, 0.2). Must be one per initialisation (1)."),
    ],
)
def test_a_cell_that_cannot_be_is_refused(change, told):
    good = cell((1.0, 2.0), init=(0, 0))
    with pytest.raises(ValueError, match=r"^Invalid") as refusal:
        dataclasses.replace(good, **change)
    assert str(refusal.value) == told


# The numbers of one cell


def test_a_row_by_hand():
    row = only(summary([cell((3.0, -4.0), init=(0, 1), exact=(2.0, 1.0), cosine=(0.2, 0.6), noise=2.5)]))
    assert (row["atoms"], row["scaling"], row["rank"], row["inits"], row["directions"]) == ("one", "canonical", 4, 2, 2)
    by_hand = {"rms_slope": math.sqrt(12.5), "noise": 2.5, "rms_noise": math.sqrt(2.5), "signal": 10.0, "fd_snr": 4.0}
    by_hand |= {"fd_snr_db": 10 * math.log10(4), "sign_agreement": 0.5, "cosine": 0.4}
    by_hand |= {"sign_expected": 0.5 + math.atan(2) / math.pi}
    assert {name: row[name] for name in by_hand} == pytest.approx(by_hand)
    # A slope that rounding made zero is a coin, not an agreement.
    assert only(summary([cell((0.0, 0.0, 1.0, -1.0), exact=(1.0, -1.0, 2.0, -2.0))]))["sign_agreement"] == 0.75
    silent = only(summary([cell((1.0, 2.0))]))  # without exact derivatives
    ends = [f"{name}{end}" for name in ("sign_agreement", "cosine") for end in ("", "_low", "_high")]
    assert all(math.isnan(silent[name]) for name in ends)


def test_one_kind_of_query_at_one_rank_is_measured_once():
    with pytest.raises(ValueError, match="Invalid cells: 2 for one, canonical, rank 4"):
        summary([cell((1.0,)), cell((2.0,))])
    with pytest.raises(ValueError, match="at least one"):
        summary([])


def test_a_slope_that_is_not_a_number_does_not_pass_for_one():
    row = only(summary([cell((1.0, math.nan), exact=(1.0, 1.0), noise=0.1)]))
    assert all(math.isnan(row[name]) for name in ("rms_slope", "signal", "fd_snr", "fd_snr_db", "sign_agreement"))
    fits = exponents([cell((1.0, math.nan), rank=rank, noise=0.1) for rank in RANKS])
    assert set(fits["verdict"]) == {"not decidable"}


def test_the_noise_correction_is_unbiased():
    rng = np.random.default_rng(0)
    cells = [measured(rng, 1.0, inits=8, noise=0.5, rank=rank) for rank in range(1, 201)]
    signals = summary(cells, resamples=1)["signal"]  # 64 slopes of mean square 1.5: never below the noise
    assert min(signals) > 0
    error = np.std(signals, ddof=1) / math.sqrt(len(signals))
    assert abs(np.mean(signals) - 1.0) < 4 * error
    assert error < 0.03


def test_expected_sign_agreement_is_what_gaussians_do():
    x, n = np.random.default_rng(1).standard_normal((2, 200_000))
    for ratio in (0.0, 0.04, 1.0, 9.0):
        agreement = np.mean(np.sign(math.sqrt(ratio) * x + n) == np.sign(x))
        assert agreement == pytest.approx(sign_expected(ratio), abs=4 * 0.5 / math.sqrt(200_000))
    assert [sign_expected(ratio) for ratio in (0.0, 1.0, math.inf)] == [0.5, 0.75, 1.0]
    assert math.isnan(sign_expected(math.nan))


# The bootstrap


def test_limits_follow_from_the_seed_and_the_cell_alone():
    cells = study(np.random.default_rng(0), ranks=(1, 4, 16), noise=0.01)
    frame = summary(cells, resamples=50)
    pd.testing.assert_frame_equal(frame, summary(reversed(cells), resamples=50))
    pd.testing.assert_frame_equal(exponents(cells, resamples=50), exponents(reversed(cells), resamples=50))
    pd.testing.assert_frame_equal(frame[7:8].reset_index(drop=True), summary(cells[7:8], resamples=50))
    assert not frame["signal_low"].equals(summary(cells, resamples=50, seed=1)["signal_low"])


def test_initialisations_are_drawn_before_directions():
    """All the difference lies between two initialisations: a resample is all of one, all of the other, or half."""
    row = only(summary([cell((1.0,) * 50 + (3.0,) * 50, init=(0,) * 50 + (1,) * 50, cosine=(0.1, 0.5))], resamples=200))
    assert (row["rms_slope_low"], row["rms_slope_high"]) == (1.0, 3.0)  # single directions would give 5 ± 0.8 squared
    assert (row["cosine_low"], row["cosine_high"]) == pytest.approx((0.1, 0.5))
    # Of initialisations with unequal numbers of directions, each keeps its own.
    row = only(summary([cell((1.0, 2.0, 2.0, 2.0), init=(7, 3, 3, 3), cosine=(0.0, 1.0))], resamples=200))
    assert (row["signal_low"], row["signal_high"]) == (1.0, 4.0)
    assert (row["signal"], row["cosine"]) == (pytest.approx(13 / 4), 0.5)


def test_directions_are_drawn_within_their_initialisation():
    rng = np.random.default_rng(0)
    slopes = rng.standard_normal(64)
    row = only(summary([cell(slopes.tolist(), init=(0,) * 64)], resamples=4000))
    spread = np.std(slopes**2, ddof=0) / 8  # of a mean of 64
    assert row["signal_high"] - row["signal_low"] == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_limits_of_a_mean_square_cover():
    rng = np.random.default_rng(3)
    rows = summary([measured(rng, 1.0, inits=8, spread=0.2, rank=rank) for rank in range(1, 151)], resamples=100)
    assert ((rows["signal_low"] <= 1) & (rows["signal_high"] >= 1)).mean() >= 0.88


# Exponents and verdicts


@pytest.mark.parametrize("kind", GRID)
def test_a_power_law_gives_its_exponent_back(kind):
    theory = {"canonical": (-1, -0.5), "rslora": (-0.5, 0), "topology": (0, 0.5)}[kind[1]][kind[0] == "all"]
    assert THEORY[kind] == theory  # as published
    values = {rank: 1.43 * rank**theory for rank in RANKS}
    signs = np.array([1, -1, -1, 1])
    named = {"atoms": kind[0], "scaling": kind[1]}
    rms = by_quantity(exponents([cell((v * signs).tolist(), rank=r, **named) for r, v in values.items()]))["rms"]
    assert [rms[name] for name in ("exponent", "exponent_low", "exponent_high")] == pytest.approx([theory] * 3)
    assert (rms["ranks"], rms["verdict"], rms["reason"]) == (5, "agrees", "")

    noisy = {rank: (math.sqrt(v * v + 0.25) * signs).tolist() for rank, v in values.items()}
    fits = by_quantity(exponents([cell(slopes, rank=r, noise=0.25, **named) for r, slopes in noisy.items()]))
    assert fits["rms"]["exponent"] == pytest.approx(theory)
    assert fits["fd_snr"]["exponent"] == pytest.approx(2 * theory)
    assert (fits["fd_snr"]["theory"], fits["fd_snr"]["verdict"]) == (2 * theory, "agrees")


@pytest.mark.parametrize(("inits", "per", "spread"), [(4, 8, 0.1), (8, 4, 0.4)])
def test_limits_of_an_exponent_cover(inits, per, spread):
    verdicts = []
    for seed in range(200):
        kind = GRID[seed % len(GRID)]
        cells = study(np.random.default_rng(seed), [kind], (1, 8, 64), inits=inits, per=per, spread=spread, noise=1e-5)
        fits = by_quantity(exponents(cells, resamples=150, seed=seed))
        assert fits["rms"]["verdict"] == fits["fd_snr"]["verdict"]  # one noise: the second is twice the first
        verdicts.append(fits["rms"]["verdict"])
    decided = [verdict for verdict in verdicts if verdict != "not decidable"]
    assert len(decided) > 190
    assert decided.count("agrees") / len(decided) >= 0.88


def test_another_exponent_is_found_out():
    cells = study(np.random.default_rng(0), power=-0.5, inits=8, noise=1e-9)
    fits = exponents(cells, resamples=100)
    assert set(fits["verdict"]) == {"disagrees"}
    assert (fits["exponent_high"] < fits["theory"]).all()


def test_a_rank_without_certain_signal_decides_nothing():
    cells = study(np.random.default_rng(0), [("one", "canonical")], noise=1e-3)  # signal 6e-8 at rank 256
    for row in by_quantity(exponents(cells)).values():
        assert row["verdict"] == "not decidable"
        assert re.match(r"no certain signal at rank .*256", row["reason"])
        assert all(math.isnan(row[f"exponent_{end}"]) for end in ("low", "high"))


def test_wide_limits_and_single_directions_decide_nothing():
    cells = [cell((1.0, 30.0), scaling="topology", rank=rank, init=(0, 0), noise=0.01) for rank in (1, 2, 4)]
    fits = by_quantity(exponents(cells))
    for quantity, widest in (("rms", 1), ("fd_snr", 2)):
        row = fits[quantity]
        assert row["exponent"] == pytest.approx(0)
        assert row["exponent_high"] - row["exponent_low"] > widest
        assert (row["verdict"], row["reason"]) == ("not decidable", f"limits further apart than {widest}")
    (row, _) = exponents([cell((1.0,), rank=rank, noise=0.01) for rank in (1, 4, 16)]).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not decidable", "a single direction at rank 1, 4, 16")


def test_the_share_of_lost_resamples_is_the_callers():
    rng = np.random.default_rng(0)
    cells = [measured(rng, 1.0, scaling="topology", rank=rank, noise=1.0) for rank in (1, 4, 16)]
    lost = [(summary([c], resamples=2000)["signal_low"] == 0).any() for c in cells]
    assert any(lost)  # more than 2.5 % of the resamples have no signal
    assert set(exponents(cells, share=0.01)["verdict"]) == {"not decidable"}
    assert not exponents(cells, share=1.0)["reason"].str.contains("signal").any()


def test_ratios_that_are_infinite_or_of_different_radii_have_no_exponent_but_the_slopes_have():
    rslora = study(np.random.default_rng(0), [("one", "rslora")], inits=8)
    noisy = study(np.random.default_rng(0), [("one", "topology")], noise=1e-6)
    radii = [dataclasses.replace(c, eps=EPS * c.rank) for c in noisy]
    for cells, reason in ((rslora, "no noise, so FD-SNR is infinite"), (radii, "eps differs between ranks")):
        fits = by_quantity(exponents(cells))
        assert fits["rms"]["verdict"] == "agrees"
        assert (fits["fd_snr"]["verdict"], fits["fd_snr"]["reason"]) == ("not decidable", reason)
    assert math.isnan(by_quantity(exponents(rslora))["fd_snr"]["exponent"])


def test_two_ranks_are_no_line(tmp_path):
    cells = study(np.random.default_rng(0), ranks=(1, 4))
    frame = exponents(cells)
    assert (len(frame), "verdict" in frame) == (0, True)
    assert "No exponents: no kind of query has 3 ranks." in report(cells, tmp_path)


# What is written


def test_a_report_as_a_person_reads_it(tmp_path):
    cells = study(np.random.default_rng(0), noise=1e-2)
    facts = {"model": "a|b", "loss": "cross\nentropy"}
    text = report(cells, tmp_path / "new", title="50% of a_b & #c", facts=facts, resamples=100)
    assert (tmp_path / "new" / "probe.md").read_text(encoding="utf-8") == text
    assert text.startswith("# 50% of a_b & #c\n")
    row = summary(cells, resamples=100).iloc[0]
    low, high = row["rms_slope_low"], row["rms_slope_high"]
    slope = f"| {row['rms_slope']:#.3g} [{low:#.3g}, {high:#.3g}]"
    decibels = f"| {row['fd_snr_db']:.1f} [{row['fd_snr_db_low']:.1f}, {row['fd_snr_db_high']:.1f}]"
    for told in (r"a\|b", "cross entropy", slope, decibels, "not decidable"):
        assert told in text
    assert "cosine" not in text  # was not measured
    numbers = pd.read_csv(tmp_path / "new" / "probe.csv")
    pd.testing.assert_frame_equal(numbers, summary(cells, resamples=100), check_exact=True)
    fits = pd.read_csv(tmp_path / "new" / "exponents.csv").fillna({"reason": ""})
    pd.testing.assert_frame_equal(fits, exponents(cells, resamples=100), check_exact=True)
    latex = (tmp_path / "new" / "probe.tex").read_text(encoding="utf-8")
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 2
    assert all(told in latex for told in (r"50\% of a\_b \& \#c", r"fd\_snr", "$-$0."))
    assert latex.isascii()
    columns = {line.count(" & ") for line in latex.splitlines() if line.startswith(("one &", "all &"))}
    assert columns == {9, 7}  # the summary has ten columns, the exponents eight


def test_without_noise_infinity_survives_everywhere(tmp_path):
    cells = study(np.random.default_rng(0))
    assert set(summary(cells, resamples=20)["fd_snr"]) == {math.inf}
    text = report(cells, tmp_path)
    assert text.count("| ∞ ") == len(cells)
    assert "inf " not in text.replace("so FD-SNR is infinite", "")
    numbers = pd.read_csv(tmp_path / "probe.csv")
    for name in ("fd_snr", "fd_snr_db"):
        assert all(set(numbers[f"{name}{end}"]) == {math.inf} for end in ("", "_low", "_high"))
    assert set(numbers["sign_expected"]) == {1.0}
    assert (tmp_path / "probe.tex").read_text(encoding="utf-8").count(r"& $\infty$ &") == len(cells)

    cells = [measured(np.random.default_rng(0), 1e-3, noise=1.0)]  # a ratio that may be nothing
    assert only(summary(cells))["fd_snr_db_low"] == -math.inf
    assert "[-∞, " in report(cells, tmp_path)
    assert r"[$-\infty$, " in (tmp_path / "probe.tex").read_text(encoding="utf-8")


def test_measurements_come_back_as_they_were(tmp_path):
    cells = study(np.random.default_rng(0), noise=1e-2)
    cells[3] = dataclasses.replace(cells[3], exact=None)
    cells[4] = dataclasses.replace(cells[4], cosine=(0.1, -0.2, 0.3, 1 / 3))
    odd = cell((math.inf, -math.inf, 1.0), scaling="rslora", rank=512, exact=(1.0, -math.inf, math.inf), noise=0.1)
    report([*cells, odd], tmp_path)
    back = read_cells(tmp_path / "slopes.jsonl")
    assert set(back) == {*cells, odd}
    for line in (tmp_path / "slopes.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no bare Infinity
    numbers = pd.read_csv(tmp_path / "probe.csv")
    pd.testing.assert_frame_equal(summary(back, resamples=20), numbers, check_exact=True)


def test_tables_written_twice_are_the_same_and_figures_stand_beside_them(tmp_path):
    cells = study(np.random.default_rng(0), [("one", "canonical")], ranks=(1, 4, 16), noise=1e-2)
    write(cells, tmp_path / "a", title="A title", facts={"eps": "0.001"}, resamples=20)
    report(cells, tmp_path / "b", facts={"eps": "0.001"})
    tables = {"probe.md", "probe.tex", "probe.csv", "exponents.csv", "slopes.jsonl"}
    figures = {f"{name}.{suffix}" for name in ("signal", "fd_snr", "sign_agreement") for suffix in ("png", "svg")}
    assert {file.name for file in (tmp_path / "a").iterdir()} == tables | figures
    assert all((tmp_path / "a" / name).stat().st_size > 1000 for name in figures)
    assert {file.name for file in (tmp_path / "b").iterdir()} == tables
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in tables)
