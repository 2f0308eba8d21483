"""Figures of a sweep: every mean and interval drawn is the right one, and what is not drawn is named."""

import io
import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations

import pytest

from tests import made_results
from tests.conformance.cases import METHODS as SHIPPED
from tests.test_plots import summary_of
from zo_runner.errors import UserError
from zo_runner.records.json_files import encode
from zo_runner.reporting.figures import line_charts, probe_figures, sweep_figures
from zo_runner.reporting.figures.line_charts import ChartPoint, interval, noise_curve, progress_curve, rank_curve
from zo_runner.reporting.figures.sweep_figures import Curve, figures, progress

SINGLE = "Single seeds, so without intervals."


def point(x, mean, spread=0.0, n=3):
    return ChartPoint(x, mean, mean - spread, mean + spread, n)


def result(score, *, metric="accuracy", fd_snr_db=20.0, test=True):
    made = made_results.result("a", accuracy=score, metric=metric, fd_snr_db=fd_snr_db)
    return made if test else replace(made, metrics={})


def curve(method="ar1zo", rank=4, scores=(0.5, 0.7), *, x=None, results=None, label=None, **changes):
    name = label or " ".join([method, *([f"rank={rank}"] if rank else [])])
    done = [result(score) for score in scores] if results is None else results
    fields = {"task": "t", "model": "m", "runs": [], "diverged": 0, "missing": 0} | changes
    return Curve(label=name, method=method, rank=rank, x=x or {}, results=done, **fields)


def run(folder, events):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(encode(event)) + "\n" for event in events))
    return folder


def lines(figure):
    """label -> x and y of the line, by the legend."""
    (axes,) = figure.axes
    looks = {}
    for line in axes.get_lines():
        if line.get_zorder() > 0:
            looks.setdefault((line.get_color(), line.get_linestyle(), line.get_marker()), []).append(line)
    found = {}
    for legend in figure.legends:
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
            (line,) = looks[handle.get_color(), handle.get_linestyle(), handle.get_marker()]
            found[text.get_text()] = ([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()])
    return found


def bands(figure):
    """Corners of each band."""
    (axes,) = figure.axes
    paths = [path for band in axes.collections for path in band.get_paths()]
    return [{(round(float(x), 9), round(float(y), 9)) for x, y in path.vertices} for path in paths]


def note(figure):
    return (figure.get_supxlabel() or "").replace("\n", " ")


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Figures by file name, as `figures` would save them."""

    def draw(rows, kinds):
        kept = {}
        monkeypatch.setattr(sweep_figures, "save", lambda figure, folder, name: kept.setdefault(name, figure) and [])
        figures(rows, tmp_path / "figures", kinds)
        for figure in kept.values():
            figure.savefig(io.BytesIO())
        return kept

    return draw


def test_an_interval_is_students_and_needs_finite_numbers():
    mean, low, high = interval([0.5, 0.7, 0.9])
    assert mean == pytest.approx(0.7)
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # the 97.5 % quantile of t with 2 degrees of freedom
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half))
    assert interval([0.25]) == interval([0.25] * 3) == (0.25, 0.25, 0.25)  # without width
    for values in ([], [math.nan], [1.0, math.inf], [1.0, -math.inf]):
        with pytest.raises(ValueError, match="Invalid values: "):
            interval(values)


def test_progress_is_the_mean_over_seeds_where_all_were_evaluated(tmp_path):
    one = [{"queries": q, "dev/loss": 1.0 - q / 100} for q in (0, 10, 20)]
    two = [{"queries": q, "dev/loss": 3.0 - q / 100} for q in (20, 0, 15)]
    train = {"queries": 5, "train/loss": 9.0}
    runs = [run(tmp_path / "a", [train, *one]), run(tmp_path / "b", two)]
    points = progress(runs, "dev/loss")
    assert [(p.x, p.mean, p.n) for p in points] == [(0, 2.0, 2), (20, pytest.approx(1.8), 2)]
    assert (points[0].low, points[0].high) == interval([1.0, 3.0])[1:]


def test_progress_leaves_out_what_is_no_number_and_runs_that_hold_nothing(tmp_path):
    good = run(tmp_path / "a", [{"queries": q, "dev/loss": 1.0} for q in (0, 10, 20)])
    bad = [{"queries": 0, "dev/loss": 2.0}, {"queries": 10, "dev/loss": math.inf}, {"queries": 20, "dev/loss": None}]
    broken = run(tmp_path / "c", [])
    (broken / "metrics.jsonl").write_text('{"queries": 0, "dev/loss": 7.0}\n{"queries": 10, "dev/lo')
    runs = [good, run(tmp_path / "b", bad), broken, tmp_path / "nowhere"]
    assert [(p.x, p.mean, p.n) for p in progress(runs, "dev/loss")] == [(0, 1.5, 2)]
    assert progress(runs, "dev/f1") == progress([], "dev/loss") == []
    for queries in ('"ten"', "[10]", "null", "true", "NaN", '"inf"', "1" + "0" * 400):
        rows = f'{{"queries": {queries}, "dev/loss": 7.0}}\n{{"queries": 0, "dev/loss": 1.0}}'
        (broken / "metrics.jsonl").write_text(rows)
        assert [(p.x, p.mean, p.n) for p in progress([good, broken], "dev/loss")] == [(x, 1.0, 1) for x in (0, 10, 20)]


def test_lines_and_bands_of_a_rank_curve_hold_the_numbers():
    series = {"ar1zo": [point(r, 80.0 - r, 2.0) for r in (1, 4, 16)], "mezo": [point(math.nan, 70.0, 1.0)]}
    figure = rank_curve(series, ylabel="test accuracy (%)", title="t, m")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4", "16"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rank r", "test accuracy (%)")
    assert lines(figure) == {"ar1zo": ([1, 4, 16], [79, 76, 64]), "mezo": ([0, 1], [70, 70])}
    (band,) = bands(figure)
    assert {(1, 77), (4, 74), (16, 62), (1, 81), (4, 78), (16, 66)} <= band
    (span,) = axes.patches
    assert (span.get_y(), span.get_height()) == (69, 2)
    assert figure.legends[0]._outside_loc == "right"


def test_a_single_seed_has_no_band_and_interrupts_one():
    figure = rank_curve({"ar1zo": [point(r, 50.0, 0.0, n=1) for r in (1, 4)]}, ylabel="", title="")
    assert bands(figure) == []
    assert rank_curve({"mezo": [point(math.nan, 50.0, n=1)]}, ylabel="", title="").axes[0].patches[:] == []
    seeds = {1: 3, 4: 3, 16: 1, 64: 3}
    mixed = rank_curve({"ar1zo": [point(r, 50.0, 5.0 * (n > 1), n) for r, n in seeds.items()]}, ylabel="", title="")
    band, bar = bands(mixed)
    assert {x for x, _ in band} == {1, 4}
    assert bar == {(64, 45), (64, 55)}  # alone, so a bar: a band would have no width


def test_an_interval_many_times_wider_than_the_differences_does_not_flatten_them():
    wide = [point(1, 80.0, 1.0), point(4, 60.0, 1000.0, n=2)]
    low, high = rank_curve({"ar1zo": wide}, ylabel="", title="").axes[0].get_ylim()
    assert low < 60 < 80 < high < low + 100
    low, high = rank_curve({"ar1zo": [point(1, 80.0, 30.0)]}, ylabel="", title="").axes[0].get_ylim()
    assert (low < 50, high > 110) == (True, True)  # where there is nothing to flatten, the whole band is shown


def test_no_noise_stands_at_the_left_edge_of_a_logarithmic_axis():
    points = [point(std, 80.0, 1.0) for std in (1e-3, 0.0, 1e-5)]
    figure = noise_curve({"ar1zo": points}, ylabel="", title="")
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1e-5", "1e-3"]
    assert lines(figure)["ar1zo"][0] == [0, 1e-5, 1e-3]
    edge, zero, small, middle, large = axes.transAxes.inverted().transform(
        [axes.transData.transform((x, 80.0)) for x in (axes.get_xlim()[0], 0.0, 1e-5, 1e-4, 1e-3)]
    )[:, 0]
    assert edge < zero < 0.1
    assert middle - small == pytest.approx(large - middle)
    assert zero < small
    without = noise_curve({"ar1zo": points[::2]}, ylabel="", title="").axes[0]
    assert len(without.get_lines()) == 1  # no mark of a break where there is none
    only = noise_curve({"ar1zo": [point(0.0, 80.0)]}, ylabel="", title="").axes[0]
    assert [tick.get_text() for tick in only.get_xticklabels()] == ["0"]


@pytest.mark.parametrize("draw", [rank_curve, progress_curve, noise_curve])
@pytest.mark.parametrize("series", [{}, {"ar1zo": []}, {"ar1zo": [point(1, math.nan), point(2, math.inf)]}])
def test_what_is_not_finite_is_counted_and_nothing_to_draw_is_no_crash(draw, series):
    figure = draw(series, ylabel="y", title="t")
    figure.savefig(io.BytesIO())
    assert list(figure.axes[0].get_yticks()) == []
    lost = sum(map(len, series.values()))
    assert note(figure) == (f"Not drawn: {lost} points outside the axis' numbers." if lost else "")
    figure = draw({"ar1zo": [point(10, 1.0), point(100, 0.1), point(1000, math.nan)]}, ylabel="y", title="t")
    assert lines(figure) == {"ar1zo": ([10, 100], [1, 0.1])}
    assert note(figure) == "Not drawn: 1 point outside the axis' numbers."


def test_names_are_text_and_never_formulas():
    hostile = "$\\frac{1}{"
    names = [hostile, "_hidden", "a" * 90, "<b>&"]  # a leading underscore hides nothing
    series = {name: [point(1, float(number))] for number, name in enumerate(names)}
    figure = rank_curve(series, ylabel=hostile, title=f"{hostile}, {'long ' * 60}", note=hostile * 30)
    figure.savefig(io.BytesIO(), format="svg")
    assert len(lines(figure)) == 4
    assert figure.get_size_inches()[0] < 12


def test_looks_are_stable_and_eighteen_methods_differ_even_without_colour_vision():
    known = line_charts.METHODS
    assert line_charts.looks(["mezo"]) == line_charts.looks(["ar1zo", "mezo"])[1:]
    assert set(SHIPPED) <= set(known)
    everybody = [*known, "new_a", "new_b", "new_c"]
    assert len(everybody) == 18
    found = line_charts.looks([method for method in everybody for _ in range(9)])
    assert len({tuple(look.values()) for look in found}) == len(found)
    first = line_charts.looks(everybody)
    assert found[::9] == first
    for one, two in combinations(first, 2):
        assert one["color"] != two["color"] or (one["linestyle"], one["marker"]) != (two["linestyle"], two["marker"])
    assert len({look["color"] for look in line_charts.looks(known[:7])}) == 7
    several = line_charts.looks(["lozo"] * 4)
    assert [len({look[key] for look in several}) for key in ("color", "linestyle", "marker")] == [1, 4, 4]


def test_the_rank_figure_shows_means_in_percent_a_line_for_each_method(drawn):
    rows = [curve("ar1zo", r, (s, s + 0.1)) for r, s in ((1, 0.5), (16, 0.6))]
    rows += [curve("naive_atom", 1, (0.4, 0.4)), curve("mezo", None, (0.7, 0.7))]
    (figure,) = drawn(rows, ["rank"]).values()
    assert lines(figure) == {
        "ar1zo": ([1, 16], pytest.approx([55, 65])),
        "naive_atom": ([1], pytest.approx([40])),
        "mezo": ([0, 1], pytest.approx([70, 70])),
    }
    low, high = (100 * end for end in interval([0.5, 0.6])[1:])
    assert {(1, round(low, 9)), (1, round(high, 9))} <= bands(figure)[0]
    assert figure.axes[0].get_ylabel() == "test accuracy (%), best on dev"
    assert figure.axes[0].get_title(loc="left") == "t, m"
    assert note(figure) == "Means over 2 seeds; bands are 95% t-intervals."
    (figure,) = drawn([curve(results=[result(12.5, metric="perplexity")])], ["rank"]).values()
    assert lines(figure)["ar1zo"][1] == [12.5]  # not in percent
    assert figure.axes[0].get_ylabel() == "test perplexity, best on dev"


def test_diverged_missing_and_unusable_runs_are_named(drawn):
    rows = [
        curve("ar1zo", 4, (0.5,), diverged=2),
        curve("lora_zo", 4, (), missing=3),
        curve("naive_atom", 4, results=[result(math.nan), result(math.inf), result(0.5), result(0.5, test=False)]),
        curve("mezo", None, results=[result(0.5, metric="f1")]),
    ]
    (figure,) = drawn(rows, ["rank"]).values()
    assert lines(figure) == {"ar1zo": ([4], [50]), "naive_atom": ([4], [50])}
    assert note(figure) == (
        f"{SINGLE} Diverged, not averaged: ar1zo rank=4 (2 of 3). Missing: lora_zo rank=4 (3 of 3). "
        "Without a finite test accuracy: naive_atom rank=4 (3 of 4), mezo (1 of 1)."
    )


def test_infinite_ratios_are_counted_not_drawn(drawn):
    given = [("ar1zo", 1, (10.0, 30.0)), ("ar1zo", 4, (10.0, math.inf)), ("lora_zo", 1, (10.0, -math.inf))]
    given.append(("naive_atom", 1, (7.0, math.nan, None)))
    rows = [curve(name, r, results=[result(0.5, fd_snr_db=value) for value in values]) for name, r, values in given]
    (figure,) = drawn(rows, ["fd_snr_rank"]).values()
    assert lines(figure) == {"ar1zo": ([1], [20]), "naive_atom": ([1], [7])}
    assert note(figure) == (
        "Means over 1 to 2 seeds; bands are 95% t-intervals. "
        "Not drawn, infinite FD-SNR (no noise): ar1zo rank=4 (1 of 2). "
        "Not drawn, no signal above the noise (-∞ dB): lora_zo rank=1 (1 of 2). "
        "Without a finite FD-SNR: naive_atom rank=1 (2 of 3)."
    )


def test_rows_that_differ_otherwise_or_stand_at_one_place_are_lines_of_their_own(drawn):
    rows = [curve("ar1zo", r, (0.5,), x={"method.scaling": s}) for r in (1, 4) for s in ("rslora", "topology")]
    rows += [curve("mezo", None, (0.6,), x={"noise.std": 1e-4})]
    (figure,) = drawn(rows, ["rank"]).values()
    assert {label: x for label, (x, _) in lines(figure).items()} == {
        "ar1zo method.scaling=rslora": [1, 4],
        "ar1zo method.scaling=topology": [1, 4],
        "mezo": [0, 1],
    }
    rows = [curve("ar1zo", 4, (score,), label=label) for score, label in ((0.5, "a"), (0.6, "b"), (0.7, "b"))]
    (figure,) = drawn(rows, ["rank"]).values()
    assert lines(figure) == {"a": ([4], [50]), "b": ([4], [60]), "b (2)": ([4], [70])}


def test_the_noise_figure_has_a_line_for_each_method_and_rank(drawn):
    rows = [curve("ar1zo", r, (0.5 + r / 100,), x={"noise.std": std}) for r in (1, 4) for std in (1e-4, 0.0)]
    rows += [curve("mezo", None, (0.6,), x={"noise.std": 1e-4}), curve("lora_zo", 4, (0.5,))]
    (figure,) = drawn(rows, ["noise"]).values()
    assert lines(figure) == {
        "ar1zo rank=1": ([0, 1e-4], [51, 51]),
        "ar1zo rank=4": ([0, 1e-4], [54, 54]),
        "mezo": ([1e-4], [60]),
    }
    assert note(figure) == f"{SINGLE} Not drawn, without noise.std: lora_zo rank=4 (1 of 1)."


def test_curves_against_queries_have_a_line_for_each_row(drawn, tmp_path):
    events = [{"queries": q, "dev/loss": 1.0, "dev/accuracy": q / 100} for q in (0, 50)]
    runs = [run(tmp_path / "a", events), run(tmp_path / "b", events)]
    late = run(tmp_path / "c", [{"queries": 7, "dev/loss": 1.0, "dev/accuracy": 0.5}])
    never = run(tmp_path / "d", [{"queries": 0, "train/loss": 1.0}])
    infinite = run(tmp_path / "e", [{**events[0], "dev/loss": math.inf}, events[1]])
    given = [("mezo", None, [runs[0], late]), ("ar1zo", 16, [infinite]), ("mezo", 2, [never]), ("ar1zo", 4, runs)]
    rows = [curve(name, rank, runs=folders) for name, rank, folders in given]
    figure = drawn(rows, ["accuracy_queries"])["accuracy_queries-t-m"]
    assert lines(figure) == {"ar1zo rank=4": ([0, 50], [0, 50]), "ar1zo rank=16": ([0, 50], [0, 50])}
    assert figure.axes[0].get_ylabel() == "dev accuracy (%)"
    assert note(figure) == (
        "Means over 1 to 2 seeds; bands are 95% t-intervals. "
        "Not drawn, no finite value at a query count that all seeds share: mezo (2 of 2). "
        "Without dev/accuracy in metrics.jsonl: mezo rank=2 (1 of 2)."
    )
    loss = drawn(rows, ["loss_queries"])["loss_queries-t-m"]
    assert lines(loss)["ar1zo rank=16"] == ([50], [1])
    assert list(lines(loss)) == ["ar1zo rank=4", "ar1zo rank=16"]  # rows of a method stand together, by rank
    assert "Dev/loss not always finite, drawn where it is: ar1zo rank=16 (1 of 2)." in note(loss)


def test_a_kind_without_its_coordinate_is_left_out_and_a_row_without_results_is_not(tmp_path):
    assert figures([curve("mezo", None, (0.5,))], tmp_path / "none", ["rank", "fd_snr_rank", "noise"]) == []
    assert figures([], tmp_path / "none", sweep_figures.KINDS) == []
    with pytest.raises(UserError, match=r"Invalid figures: .ranks.\. Must be one of accuracy_queries, fd_snr_rank"):
        figures([], tmp_path / "none", ["rank", "ranks"])
    assert not (tmp_path / "none").exists()
    kinds = ["rank", "accuracy_queries"]
    files = figures([curve(scores=(), missing=2)], tmp_path / "holes", kinds)
    assert [file.name for file in files] == [f"{kind}-t-m.{end}" for kind in kinds for end in ("png", "svg")]


def test_every_task_and_model_has_its_figure_and_no_name_leads_out_of_the_folder(tmp_path):
    names = [("a-b", "c"), ("a", "b-c"), ("../../x y", "/etc"), ("$t", "é")]
    folder = tmp_path / "deep" / "figures"
    files = figures([curve(task=task, model=model) for task, model in names], folder, ["rank", "rank"])
    drawings = [file.name for file in files if file.suffix == ".png"]
    assert drawings == ["rank--t-é.png", "rank-..-..-x-y--etc.png", "rank-a-b-c.png", "rank-a-b-c.2.png"]
    assert sorted(folder.iterdir()) == sorted(files)
    assert list(tmp_path.iterdir()) == [tmp_path / "deep"]


def every_kind(folder, runs):
    rows = [curve(m, 4, x={"noise.std": std}, runs=runs) for m in ("ar1zo", "mezo") for std in (0.0, 1e-4)]
    return figures(rows, folder, sweep_figures.KINDS)


def of_the_probe(folder, runs):
    folder.mkdir()
    return probe_figures.rank_figures(summary_of(kinds=[("one", "canonical"), ("all", "topology")]), folder)


@pytest.mark.parametrize(("draw", "drawings"), [(every_kind, len(sweep_figures.KINDS)), (of_the_probe, 3)])
def test_files_are_the_same_every_time_whatever_the_users_settings(draw, drawings, tmp_path):
    import matplotlib

    events = [{"queries": q, "dev/loss": 1.0, "dev/accuracy": 0.5} for q in (0, 9)]
    runs = [run(tmp_path / name, events) for name in "ab"]
    files = draw(tmp_path / "one", runs)
    assert len(files) == 2 * drawings
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.hashsalt": None}):
        draw(tmp_path / "two", runs)
        assert matplotlib.rcParams["font.size"] == 30  # and they are left as they were
    for file in files:
        content = file.read_bytes()
        assert content == (tmp_path / "two" / file.name).read_bytes()
        if file.suffix == ".png":
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")
            assert b"<dc:date>" not in content
