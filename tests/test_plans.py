"""Plans: which runs a sweep is, and which configuration its first stage chooses."""

import math
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import made_results
from zo_runner.config.overrides import Raw, word
from zo_runner.errors import UserError
from zo_runner.jobs.sweeps.plan import plan
from zo_runner.jobs.sweeps.selection import choose

GRIDS = [{"method": ["mezo"]}, {"method": ["lora_zo", "ar1zo"], "rank": [4, 64]}]
TUNE = {"method.lr_scale": [0.03, 0.1]}


def planned(*, words=None, scale="pocket", **changes):
    data = {"settings": {"budget.queries": 100}, "grids": GRIDS, "tune": TUNE, "tune_seeds": [7], "seeds": [0, 1]}
    return plan({"pocket": data | changes}, scale, words or {})


def labels(made):
    return [row.label for row in made.rows]


# Rows


def test_a_sweep_is_the_union_of_its_grids_and_a_grid_is_the_product_of_its_lists():
    assert labels(planned()) == ["mezo", "lora_zo rank=4", "lora_zo rank=64", "ar1zo rank=4", "ar1zo rank=64"]


def test_a_row_that_two_grids_have_is_there_once_and_tuning_is_a_product():
    assert labels(planned(grids=[*GRIDS, {"method": ["ar1zo"], "rank": [4]}])).count("ar1zo rank=4") == 1
    assert len(planned(tune={"method.lr": [1, 2, 3], "method.eps": [1, 2]}).rows[0].candidates) == 6


def test_every_run_has_the_settings_then_its_row_then_what_is_tuned_then_its_seed():
    made = planned()
    row = made.rows[1]
    words = made.words(row, row.candidates[1], 5)
    assert words == ["budget.queries=100", "method=lora_zo", "rank=4", "method.lr_scale=0.1", "seed=5"]


def test_without_tune_there_is_one_empty_candidate_and_no_stage_one():
    made = planned(tune={})
    assert all(row.candidates == ({},) for row in made.rows)
    assert not made.tuned
    assert planned().tuned


def test_a_grid_may_have_a_tune_of_its_own():
    grids = [{"method": ["mezo"], "tune": {"method.lr": [1e-6, 1e-7]}}, {"method": ["ar1zo"]}]
    mezo, ar1zo = planned(grids=grids).rows
    assert mezo.candidates == ({"method.lr": 1e-6}, {"method.lr": 1e-7})
    assert ar1zo.candidates == ({"method.lr_scale": 0.03}, {"method.lr_scale": 0.1})


def test_rows_that_are_not_tuned_equally_are_refused_by_name():
    grids = [{"method": ["mezo"], "tune": {"method.lr": [1e-6]}}, {"method": ["ar1zo"]}]
    with pytest.raises(UserError) as refused:
        planned(grids=grids)
    assert str(refused.value) == (
        "Invalid sweep.scales.pocket.tune: mezo tries 1, ar1zo tries 2 configurations. "
        "Must be the same number for every row."
    )


# The command line


def test_a_key_of_the_command_line_takes_the_place_of_the_file_s_in_every_grid():
    made = planned(words={"rank": [Raw("8")], "budget.queries": [Raw("20")]})
    assert labels(made) == ["mezo", "lora_zo", "ar1zo"]
    assert made.settings == {"budget.queries": "20", "rank": "8"}


def test_several_values_on_the_command_line_make_rows():
    made = planned(words={"method": [Raw("ar1zo"), Raw("mezo")]})
    assert sorted(labels(made)) == [
        "ar1zo",
        "ar1zo rank=4",
        "ar1zo rank=64",
        "mezo",
        "mezo rank=4",
        "mezo rank=64",
    ]


def test_a_tuned_key_on_the_command_line_is_not_tuned():
    made = planned(words={"method.lr_scale": [Raw("0.05")]})
    assert not made.tuned
    assert made.settings["method.lr_scale"] == "0.05"


def test_seeds_on_the_command_line_are_those_of_stage_two():
    made = planned(words={"seed": [Raw("3"), Raw("4")]})
    assert (made.tune_seeds, made.seeds) == ((7,), (3, 4))


# Refusals


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("settings", "rank=4", ": 'rank=4'. Must be keys with values."),
        ("settings", [1], ": [1]. Must be keys with values."),
        ("grids", 3, ": 3. Must be a list of grids."),
        ("grids", ["mezo"], ": 'mezo'. Must be keys with values."),
        ("grids", [{"method": "mezo"}], ".method: 'mezo'. Must be a list"),
        ("grids", [{"rank": []}], ".rank: []. Must be a list of at least one"),
        ("tune", [0.1], ": [0.1]. Must be keys with values."),
        ("tune", {"method.lr": 0.1}, ".method.lr: 0.1. Must be a list"),
        ("protocol", 1, ": 1. Must be keys with values."),
        ("seed", [0], ": [0]. Must be left out: a scale has settings, grids"),
        ("seeds", [], ": []. Must be a list of different integers >= 0."),
        ("seeds", [1, 1], ": [1, 1]."),
        ("seeds", None, ": None."),
        ("tune_seeds", [-1], ": [-1]."),
    ],
)
def test_a_malformed_scale_is_refused_by_its_place(key, value, told):
    with pytest.raises(UserError) as refused:
        planned(**{key: value})
    assert str(refused.value).startswith(f"Invalid sweep.scales.pocket.{key}{told}")


def test_an_unknown_scale_or_one_that_is_no_keys_is_refused():
    with pytest.raises(UserError, match=r"^Invalid scale: 'huge'\. Must be one of pocket\.$"):
        planned(scale="huge")
    with pytest.raises(UserError, match=r"^Invalid sweep\.scales\.pocket: 'all'\. Must be keys with values\.$"):
        plan({"pocket": "all"}, "pocket", {})


# Overrides

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
values = st.recursive(
    plain | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["key_a", "key_b"]), inner),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(values)
@example("ends with \\")
@example("{text} It's a,b=c")
@example("null")
@example("1e-3")
def test_hydra_reads_back_every_value(value):
    override = OverridesParser.create().parse_override(word("key", value))
    assert override.value() == value


# The choice


def result(accuracy=0.5, loss=1.0, *, status="done", metric="accuracy", last=None):
    best = {metric: accuracy, "loss": loss}
    made = made_results.result("a", status=status, metric=metric)
    return replace(made, metrics={"dev": {"best": best, "last": last or best}})


def test_the_best_mean_over_the_tuning_seeds_is_chosen():
    assert choose([[result(0.9), result(0.5)], [result(0.75), result(0.7)]], "best") == 1


def test_equal_scores_are_told_apart_by_the_loss_and_then_by_their_order():
    assert choose([[result(0.9, 0.4)], [result(0.9, 0.3)]], "best") == 1
    assert choose([[result(0.9, 0.4)], [result(0.9, 0.4)]], "best") == 0


def test_perplexity_is_better_when_it_is_lower():
    assert choose([[result(30.0, metric="perplexity")], [result(20.0, metric="perplexity")]], "best") == 1


def test_a_configuration_with_a_diverged_seed_loses_to_every_other():
    assert choose([[result(0.99), result(status="diverged")], [result(0.5), result(0.5)]], "best") == 1
    assert choose([[result(status="diverged")], [result(status="diverged")]], "best") is None
    assert choose([[result(math.nan)], [result(0.5)]], "best") == 1


def test_the_last_score_can_choose():
    tried = [[result(0.9, last={"accuracy": 0.5, "loss": 1.0})], [result(0.8, last={"accuracy": 0.8, "loss": 1.0})]]
    assert (choose(tried, "best"), choose(tried, "last")) == (0, 1)
