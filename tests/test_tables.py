"""Tables: that the numbers are the numbers, that nothing is hidden, and that three formats say the same."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from tests.made_results import cells, hole, result, without_adapter
from zo_runner.errors import UserError
from zo_runner.reporting.tables import tables
from zo_runner.reporting.tables.tables import Protocol, Search

SIX = {f"{name}.{suffix}" for name in ("table", "cost") for suffix in ("md", "csv", "tex")}


def only(results, protocol=None):
    """The one table that must come of it."""
    (table,), refused = tables.build(results, protocol)
    assert refused == []
    return table


def write(results, folder, protocol=None):
    """Build and write tables: the Markdown, and the sentences about those that were refused."""
    made, refused = tables.build(results, protocol)
    return tables.write(made, refused, folder, protocol), refused


def shown(results, protocol=None):
    """The main table as texts: one dictionary per row."""
    return only(results, protocol).texts().to_dict("records")


def line_of(results):
    (line,) = only(results).scores.to_dict("records")
    return line


def untested(made):
    made.metrics["test"] = {}
    return made


AGAINST_LORA = Protocol(baseline="lora_zo")
POINTS = {"zero_shot_dev": ("dev", "zero_shot"), "dev_best": ("dev", "best")}
POINTS |= {"test_best": ("test", "best"), "test_last": ("test", "last")}
TITLES = ["zero-shot dev %", "dev % (best)", "test % (best)", "test % (last)"]


def seeds(name, accuracies, **changes):
    return [result(f"{name}{s}", seed=s, accuracy=a, **changes) for s, a in enumerate(accuracies)]


def test_a_cell_is_mean_deviation_and_limits_over_seeds():
    made = seeds("a", (0.5, 0.6, 0.7))
    line = line_of(made)
    assert (line["n"], line["diverged"], line["invalid"], line["missing"]) == (3, 0, 0, 0)
    for name in POINTS:
        assert (line[name], line[f"{name}_sd"]) == pytest.approx((0.6, 0.1))
        half = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975, 2)
        assert (line[f"{name}_low"], line[f"{name}_high"]) == pytest.approx((0.6 - half, 0.6 + half))
    assert line["queries"] == 40  # train and calibration; noise is not charged
    (texts,) = shown(made)
    assert texts["test % (best)"] == "60.0 ± 10.0 [35.2, 84.8]"
    assert (texts["queries"], texts["FD-SNR dB"]) == ("40", "20.0 ± 0.0")


def test_one_seed_has_neither_spread_nor_limits_and_columns_of_trouble_are_hidden():
    line = line_of([result("a")])
    assert line["n"] == 1
    assert all(math.isnan(line[f"test_best_{end}"]) for end in ("sd", "low", "high"))
    (texts,) = shown([result("a")])
    assert texts["test % (best)"] == "50.0"
    assert not {"missing", "diverged", "invalid"} & set(texts)


def test_best_and_last_and_zero_shot_are_told_apart_and_perplexity_is_no_percentage():
    made = result("a")
    for number, (split, point) in enumerate(POINTS.values()):
        made.metrics[split][point]["accuracy"] = number / 10
    (texts,) = shown([made])
    assert [texts[title] for title in TITLES] == ["0.0", "10.0", "20.0", "30.0"]
    (texts,) = shown([result("a", metric="perplexity", accuracy=12.345)])
    assert texts["test perplexity (best)"] == "12.35"
    assert not any("%" in title for title in texts)


def test_a_refused_section_leaves_no_earlier_table_and_does_not_take_the_others_along(tmp_path):
    write([result("a")], tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == SIX
    (tmp_path / "notes.txt").touch()
    bad = [result("c"), result("d", budget__queries=80)]
    write(bad, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    good = [result("a", task__name="other"), result("b", task__name="other", rank=4)]
    text, (refused,) = write([*good, *bad], tmp_path)
    assert "### other, m: 40 queries of 16 examples, accuracy" in text
    assert f"Refused: {refused}" in text
    assert list(pd.read_csv(tmp_path / "table.csv")["task"]) == ["other", "other"]


def test_unmatched_rows_are_shown_on_request_with_the_reason_and_a_mark(tmp_path):
    given = [*seeds("a", (0.5, 0.6)), *seeds("b", (0.6, 0.8), rank=4)]
    given += seeds("c", (0.7, 0.8), rank=2, budget__queries=80)
    given += [result("d", method__name="lora_zo", rank=2), result("e", method__name="lora_zo", rank=4)]
    text, refused = write(given, tmp_path, Protocol(baseline="lora_zo", allow_unmatched=True))
    assert refused == []
    assert "its rows differ in budget.queries (40, 80), so they cannot be compared" in text.split("| method")[0]
    rows = {(row["method"], row["rank"]): row for row in cells(text)}
    assert set(rows) == {("ar1zo *", "2"), ("ar1zo", "4"), ("ar1zo", "8"), ("lora_zo", "2"), ("lora_zo", "4")}
    assert rows["ar1zo *", "2"]["budget.queries"] == "80"
    assert rows["ar1zo *", "2"]["W/T/L against lora_zo"] == "-"  # not on equal ground
    assert rows["ar1zo", "4"]["W/T/L against lora_zo"] == "1/0/0"
    assert "ar1zo rank=2: it and its row of lora_zo do not match" in text
    assert text.startswith("### t, m: different budgets")
    stored = pd.read_csv(tmp_path / "table.csv")
    assert list(stored[stored["unmatched"]]["rank"]) == [2]
    for file in ("table.tex", "cost.md", "cost.tex"):
        content = (tmp_path / file).read_text(encoding="utf-8")
        assert "ar1zo *" in content
        assert "cannot be compared" in content
    table = only([result("a")], Protocol(allow_unmatched=True))  # rows that match have neither mark nor warning
    assert (table.warning, list(table.scores["unmatched"]), list(table.texts()["method"])) == ("", [False], ["ar1zo"])


def test_a_row_of_holes_is_a_row(tmp_path):
    given = [result("a", rank=4), hole("b", seed=0), hole("c", seed=1)]
    first, second = shown(given)
    assert (first["rank"], first["missing"]) == ("4", "0")
    assert (second["rank"], second["n"], second["missing"]) == ("8", "0", "2")
    assert {second[title] for title in TITLES} == {"missing"}
    assert math.isnan(only(given).scores["test_best"][1])
    assert math.isnan(only(given).costs["tokens"][1])
    text, refused = write([hole("a"), hole("b", rank=4)], tmp_path, AGAINST_LORA)  # of holes alone
    assert refused == []
    assert [row["test % (best)"] for row in cells(text)] == ["missing", "missing"]


def test_a_diverged_run_is_counted_and_never_averaged():
    diverged = result("b", seed=1, status="diverged", accuracy=0.1)
    del diverged.metrics["test"]["last"]
    line = line_of([result("a", accuracy=0.9), diverged])
    assert (line["n"], line["diverged"], line["test_best"]) == (1, 1, 0.9)
    (alone,) = shown([diverged])
    assert {alone[title] for title in TITLES} == {"diverged"}
    assert "10.0" not in alone.values()


def test_an_invalid_run_is_counted_named_and_never_averaged(tmp_path):
    bad = result("b", seed=1)
    bad.metrics["test"]["best"]["accuracy"] = math.nan
    line = line_of([result("a", accuracy=0.9), bad])
    assert (line["n"], line["invalid"], line["test_best"], line["test_last"]) == (1, 1, 0.9, 0.9)
    text, refused = write([result("a", accuracy=0.9), bad], tmp_path)
    assert refused == []
    told = "Invalid, and not averaged: ar1zo rank=8: run b (seed 1) says done and has test best accuracy nan."
    assert told in text
    assert "says done and has test best accuracy nan" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    (alone,) = shown([bad])
    assert {alone[title] for title in TITLES} == {"invalid"}


def test_an_unread_test_is_a_dash_and_not_a_mean_of_some():
    tuned = untested(result("b", seed=1, accuracy=0.9))
    (texts,) = shown([result("a", accuracy=0.5), tuned])
    assert texts["dev % (best)"].startswith("70.0 ±")
    assert texts["test % (best)"] == texts["test % (last)"] == "-"
    (texts,) = shown([tuned, result("c", seed=2, status="diverged")])
    assert (texts["dev % (best)"], texts["test % (best)"], texts["diverged"]) == ("90.0", "-", "1")


@pytest.mark.parametrize(
    ("key", "value", "title"),
    [
        ("method.lr", 1e-2, "lr"),
        ("method.order", "random", "method.order"),
        ("alpha", 8.0, "alpha"),
        ("noise.std", 0.1, "noise.std"),
        ("adapter.target_modules", ["q_proj"], "adapter.target_modules"),
    ],
)
def test_rows_that_differ_are_not_averaged_and_their_difference_has_a_column(key, value, title):
    given = [result("a", accuracy=0.5), result("b", accuracy=0.9, **{key.replace(".", "__"): value})]
    texts = shown(given)
    assert len({row[title] for row in texts}) == 2
    assert sorted(only(given).scores["test_best"]) == [0.5, 0.9]
    alone = [result("a"), result("b", method__name="mezo", method__order="none")]  # differs between methods alone
    assert "method.order" not in shown(alone)[0]


def test_a_calibrated_rate_is_the_mean_of_its_seeds_and_a_missing_one_a_dash():
    made = [replace(result(str(s), seed=s, method__lr="auto"), lr=lr) for s, lr in enumerate((0.002, 0.004))]
    assert shown(made)[0]["lr"] == "auto: 0.003"
    assert shown([hole("a", method__lr="auto")])[0]["lr"] == "auto"
    assert shown([result("a", method__lr="auto")])[0]["lr"] == "auto"
    without = result("a")
    del without.identity["method"]["lr"]
    assert shown([without, result("b", rank=4)])[1]["lr"] == "-"


def test_what_was_chosen_and_what_choosing_cost_stand_in_the_table():
    made = [result("a", method__lr="auto"), result("b", method__name="mezo")]
    searches = {
        tables.configuration(made[0].identity): Search(3, 2, 240, {"method.lr_scale": 0.1, "method.lr": "auto"}),
        tables.configuration(made[1].identity): Search(3, 2, 200, {"method.momentum": 0.9}),
    }
    table = only(made, Protocol(searches=searches))
    first, second = table.texts().to_dict("records")
    assert (first["method.lr_scale"], first["method.momentum"]) == ("0.1", "-")
    assert (second["method.lr_scale"], second["method.momentum"]) == ("-", "0.9")
    assert "method.lr" not in first  # has its own column
    assert first["search cost"] == "3 × 2 seeds = 240 queries"
    assert list(table.scores["search_queries"]) == [240, 200]
    assert table.notes == ()


def test_rows_that_were_not_searched_alike_are_named():
    made = [result("a"), result("b", method__name="mezo"), result("c", method__name="lozo")]
    one, two = (tables.configuration(each.identity) for each in made[:2])
    table = only(made, Protocol(searches={one: Search(3, 1, 120, {}), two: Search(2, 1, 80, {})}))
    (note,) = table.notes
    for told in ("3 on 1 seed: ar1zo", "2 on 1 seed: mezo", "none: lozo"):
        assert told in note
    assert table.texts()["search cost"].tolist() == ["3 × 1 seed = 120 queries", "-", "2 × 1 seed = 80 queries"]


def test_rows_are_paired_with_the_baseline_on_shared_seeds():
    ours, theirs = seeds("a", (0.9, 0.5, 0.7)), seeds("b", (0.8, 0.6, 0.7), method__name="lora_zo")
    table = only([*ours, *theirs, result("c", seed=9, accuracy=0.99)], AGAINST_LORA)
    row, baseline = table.texts().to_dict("records")
    assert row["difference"].startswith("+0.0 [-24.8, ")
    assert (row["W/T/L against lora_zo"], row["p"]) == ("1/1/1", "1.000")
    assert [baseline[key] for key in ("W/T/L against lora_zo", "difference", "p")] == ["baseline", "-", "-"]
    line = table.scores.to_dict("records")[0]
    assert (line["paired_n"], line["paired_on"], line["paired_with"]) == (3, "test_best", "lora_zo")
    (note,) = table.notes  # nothing is left unpaired, the baseline included
    assert "not corrected for the number of rows" in note

    table = only([untested(made) for made in (*ours, *theirs)], AGAINST_LORA)  # where test was not read, on dev
    assert table.texts()["W/T/L against lora_zo"].tolist() == ["1/1/1", "baseline"]
    assert "better / as good / worse on dev (best)" in table.notes[0]
    assert set(table.scores["paired_on"]) == {"dev_best"}


LORA = {"method__name": "lora_zo"}


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ([result("a", accuracy=0.9), result("b", **LORA)], "+40.0"),
        ([result("a", metric="perplexity", accuracy=v, **c) for v, c in ((20.0, {}), (25.5, LORA))], "-5.50"),
        ([*seeds("a", (0.9, 0.9)), result("b", **LORA), result("c", seed=1, status="diverged", **LORA)], "+40.0"),
    ],
    ids=["accuracy", "perplexity", "a diverged seed is not paired"],
)
def test_a_pair_of_one_seed_has_a_difference_and_no_test(given, difference):
    row, _ = shown(given, AGAINST_LORA)
    assert (row["W/T/L against lora_zo"], row["difference"], row["p"]) == ("1/0/0", difference, "-")


def test_why_a_row_is_not_paired_is_written(tmp_path):
    given = [result("a"), result("b", seed=1, method__name="lora_zo"), result("c", method__name="mezo", noise__std=0.1)]
    text, _ = write(given, tmp_path, AGAINST_LORA)
    assert "Not paired: ar1zo rank=8: they share no seed with a score." in text
    assert "Not paired: mezo rank=8: no row of lora_zo has its noise.std." in text
    stored = pd.read_csv(tmp_path / "table.csv").set_index("method")["unpaired"]
    assert stored["ar1zo"] == "they share no seed with a score"


def test_infinite_and_missing_ratios_survive_in_every_file(tmp_path):
    values = (math.inf, math.nan, -math.inf, 10.0)
    results = [result(str(rank), rank=rank, fd_snr_db=value) for rank, value in enumerate(values, 1)]
    text, refused = write(results, tmp_path)
    assert refused == []
    assert [row["FD-SNR dB"] for row in cells(text)] == ["∞", "-", "-∞", "10.0"]
    stored = pd.read_csv(tmp_path / "table.csv").set_index("rank")["fd_snr_db"]
    assert list(stored) == pytest.approx(values, nan_ok=True)
    lines = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    ends = [line.rsplit(" & ", 1)[1] for line in lines if line.startswith("ar1zo")]
    assert ends == [r"$\infty$ \\", r"- \\", r"$-\infty$ \\", r"10.0 \\"]
    line = line_of([result("a", fd_snr_db=10.0), result("b", seed=1, fd_snr_db=math.inf)])
    assert line["fd_snr_db"] == math.inf
    assert math.isnan(line["fd_snr_db_sd"])


def test_costs_are_means_over_the_same_seeds_and_dashes_where_not_booked():
    other = replace(result("b", seed=1), tokens=1236, flops=7e9, peak_memory_bytes=5 * 2**20)
    other.seconds.update(train=20.0, step_median=0.7)
    diverged = replace(result("c", seed=2, status="diverged"), tokens=9)
    table = only([result("a"), other, diverged])
    (line,) = table.costs.to_dict("records")
    assert (line["n"], line["tokens"], line["flops"], line["seconds_train"]) == (2, 1235, 6e9, 15.0)
    (row,) = table.cost_texts().to_dict("records")
    expected = {"queries train": "38", "calibration": "2", "noise": "99", "examples": "640", "tokens": "1235"}
    expected |= {"s train": "15.0", "s calibration": "1.0", "s noise": "2.0", "s evaluation": "3.0"}
    assert row.items() >= (expected | {"FLOPs": "6.00e+09", "s/step": "0.6000", "peak MiB": "4"}).items()
    assert "Peak memory: resident set of the process." in table.costs_caption

    silent = replace(result("a"), peak_memory_bytes=None, peak_memory_of="", memory_bytes={"step": None})
    silent.seconds["step_median"] = math.nan
    (row,) = only([silent]).cost_texts().to_dict("records")
    assert {row[title] for title in ("s/step", "peak MiB", "model MiB", "step MiB")} == {"-"}
    assert row["tokens"] == "1234"
    assert "not said what of" in only([silent]).costs_caption


def test_the_main_table_is_the_same_on_every_machine_and_in_any_order(tmp_path):
    def files(given, name):
        write(given, tmp_path / name, AGAINST_LORA)
        return {file: (tmp_path / name / file).read_bytes() for file in SIX}

    slow = replace(result("a"), peak_memory_bytes=10**12, peak_memory_of="tensors in CUDA's allocator")
    slow.seconds.update(dict.fromkeys(slow.seconds, 1e6))
    one, other = files([result("a")], "fast"), files([slow], "slow")
    assert {name for name in SIX if one[name] == other[name]} == {name for name in SIX if name.startswith("table")}
    given = [*seeds("a", (0.5, 0.7, 0.6)), *seeds("b", (0.1, 0.3), method__name="lora_zo"), hole("c", rank=4)]
    assert files(given, "a") == files(given[::-1], "b")


def test_a_caption_and_the_budget_in_its_unit_stand_above_the_table(tmp_path):
    text, _ = write([result("a")], tmp_path, Protocol(caption="Methods at equal queries"))
    assert text.startswith("Methods at equal queries\n\n### t, m:")
    assert write([result("a")], tmp_path)[0].startswith("### t, m:")
    tokens = result("a", budget__queries=None, budget__tokens=2000000)
    assert only([tokens], Protocol(match="tokens")).title.startswith("t, m: 2000000 tokens, accuracy")
    seconds = result("a", budget__queries=None, budget__seconds=60.0)
    assert only([seconds]).title.startswith("t, m: 60.0 seconds, accuracy")
    assert write([], tmp_path / "out") == ("", [])
    assert not (tmp_path / "out").exists()


def test_the_unit_that_is_matched_is_checked(tmp_path):
    _, refused = write([result("a")], tmp_path, Protocol(match="tokens"))
    assert "budget.tokens, which was not granted to ar1zo rank=8" in refused[0]
    with pytest.raises(UserError, match=r"Invalid sweep\.match: 'steps'\. Must be one of queries, seconds, tokens"):
        Protocol(match="steps")


HOSTILE = r"a_b|c & 50% \x {y} #1 $z$ <i> ~^"


def test_names_cannot_break_out_of_a_table(tmp_path):
    given = [result("a", method__name=HOSTILE), result("b", method__name="other"), result("c", method__order="p|q\nr")]
    given.append(result("d", rank=4))
    text, _ = write(given, tmp_path, Protocol(caption="Ranks & 50 % of them"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    name = r"a\_b\textbar{}c \& 50\% \textbackslash{}x \{y\} \#1 \$z\$ \textless{}i\textgreater{} "
    assert f"{name}\\textasciitilde{{}}\\textasciicircum{{}} &" in latex
    assert r"\caption{Ranks \& 50 \% of them. t, m:" in latex
    assert latex.isascii()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    assert latex.count(r"\toprule") == latex.count(r"\midrule") == latex.count(r"\bottomrule") == 1


def test_latex_tells_once_what_is_the_same_in_all_rows(tmp_path):
    write([result("a"), result("b", rank=4, accuracy=0.9)], tmp_path)
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert "The same in all rows: lr 0.001, eps 0.001, n 1, " in latex
    header = next(line for line in latex.splitlines() if line.startswith("method"))
    assert header == r"method & rank & zero-shot dev \% & dev \% (best) & test \% (best) & test \% (last) \\"
    write([result("a")], tmp_path)  # a single row is shown whole
    assert "search cost" in (tmp_path / "table.tex").read_text(encoding="utf-8")


def test_the_csv_holds_the_numbers_unrounded_of_rows_with_different_columns(tmp_path):
    given = seeds("a", (1 / 3, 2 / 3, 0.5))
    write(given, tmp_path)
    stored = pd.read_csv(tmp_path / "table.csv")
    expected = only(given).scores
    for name in ("test_best", "test_best_sd", "test_best_low", "test_best_high"):
        assert stored[name][0] == expected[name][0]
    mezo = without_adapter(result("d", method__name="mezo"))
    text, _ = write([result("a"), result("b", method__order="random"), result("c", task__name="u"), mezo], tmp_path)
    stored = pd.read_csv(tmp_path / "table.csv")
    assert list(stored["task"]) == ["t", "t", "t", "u"]
    assert list(stored["method"]) == ["ar1zo", "ar1zo", "mezo", "ar1zo"]
    assert set(stored["method.order"][:2]) == {"cyclic", "random"}
    assert pd.isna(stored["method.order"][3])
    assert math.isnan(stored["rank"][2])
    assert text == (tmp_path / "table.md").read_text(encoding="utf-8")


def test_published_numbers_stand_below_ours_under_their_own_heading(tmp_path):
    with pytest.raises(UserError, match=r"Invalid sweep\.published: 'lozo'\. Must be one of .*lozo_opt_13b"):
        write([result("a")], tmp_path / "out", Protocol(published=["lozo"]))
    assert not (tmp_path / "out").exists()
    text, _ = write([result("a")], tmp_path, Protocol(published=["lozo_opt_13b", "bszo_opt_1.3b"]))
    ours, theirs = text.split("### Published elsewhere (not comparable run by run)")
    assert "ar1zo" in ours
    assert "LOZO" not in ours
    assert theirs.index("arXiv:2410.07698") < theirs.index("arXiv:2601.01452")
    assert theirs.count("Different from ours:") == 2
    assert (tmp_path / "table.tex").read_text(encoding="utf-8").count(r"\caption{Published: ") == 2
    assert "LOZO" not in (tmp_path / "table.csv").read_text(encoding="utf-8")
