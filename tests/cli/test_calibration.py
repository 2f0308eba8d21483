"""method.lr=auto and method.eps=auto as a person uses them: charged, recorded, repeatable."""

import math

import pytest

from tests.cli.helpers import SMALL, read_journal, read_json, the_run, zo_run
from tests.conformance.cases import METHODS, ZEROTH_ORDER, Problem, groups_of, method_of
from zo_runner.records.json_files import decode

AUTO = (*SMALL, "method.lr=auto", "calibration.probes=4", "noise.repeats=4")


def calibrated(root, *words):
    ended = zo_run(*AUTO, f"runtime.root={root}", *words)
    assert ended.code == 0, ended.err
    run = the_run(root)
    return read_json(run / "result.json"), read_journal(run), ended


FEW = {"ar1zo", "fzoo", "mezo"}  # of one atom, normalized, of every parameter
NAMES = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in METHODS if name in ZEROTH_ORDER]


@pytest.mark.parametrize("name", NAMES)
def test_calibration_is_charged_and_the_rest_of_the_budget_is_trained(name, tmp_path):
    result, journal, _ = calibrated(tmp_path, f"method={name}")
    method = method_of(METHODS[name], Problem(groups_of(METHODS[name])))
    readings = math.ceil(len(journal) / 16) if method.follows_curvature else 0
    each = 3 if method.has_halves else 1
    assert result["queries"]["calibration"] == (2 + each) * 4 + each * readings  # probes, then readings on the way
    left = result["budget"]["queries"] - result["queries"]["calibration"] - result["queries"]["train"]
    assert 0 <= left < method.queries_per_step + each  # not enough for another step and its reading
    assert len(journal) == result["queries"]["train"] // method.queries_per_step
    found = result["calibration"]
    assert result["lr"] == found["lr"] == journal[0]["lr"]
    if method.normalizes == "nothing":
        measured = result["identity"]["method"]["lr_scale"] / found["curvature"]
        assert found["lr"] == pytest.approx(min(measured, decode(found["lr_max"])))
    else:
        assert {row["lr"] for row in journal} == {found["lr"]}
    assert result["eps"] == found["eps"]
    assert result["seconds"]["calibration"] > 0


def test_the_rate_follows_the_curvature_and_never_rises_above_the_first(tmp_path):
    words = ("budget.queries=100", "method.lr_scale=0.5", "calibration.every=1", "calibration.walk=null")
    _, journal, _ = calibrated(tmp_path, *words)
    rates = [row["lr"] for row in journal]
    assert len(set(rates)) > 10
    assert max(rates) == rates[0]


def test_without_readings_on_the_way_the_rate_stays_it_repeats_and_a_number_in_its_place_takes_the_same_steps(tmp_path):
    result, journal, _ = calibrated(tmp_path / "auto", "calibration.every=0")
    assert result["queries"]["calibration"] == 5 * 4
    assert {row["lr"] for row in journal} == {result["lr"]}
    again, repeated, _ = calibrated(tmp_path / "again", "calibration.every=0")
    assert again["calibration"] == result["calibration"]
    assert repeated == journal
    number = (*SMALL, f"method.lr={result['lr']!r}", "noise.repeats=4", f"runtime.root={tmp_path / 'number'}")
    assert zo_run(*number).code == 0
    given = read_journal(the_run(tmp_path / "number"))
    for row in (*given, *journal):
        del row["spent"]  # the numbers of a calibration are charged too
    assert given[: len(journal)] == journal


def test_the_scale_multiplies_the_rate(tmp_path):
    one, _, _ = calibrated(tmp_path / "1", "method.lr_scale=0.1", "calibration.walk=null")
    three, _, _ = calibrated(tmp_path / "3", "method.lr_scale=0.3", "calibration.walk=null")
    assert three["lr"] == pytest.approx(3 * one["lr"])
    assert one["run_id"] != three["run_id"]


def test_the_rate_keeps_the_walk_of_a_within_what_is_allowed(tmp_path):
    one, _, _ = calibrated(tmp_path / "1", "calibration.walk=0.001")
    double, _, _ = calibrated(tmp_path / "2", "calibration.walk=0.002")
    assert one["lr"] == one["calibration"]["lr_max"]
    assert double["lr"] == pytest.approx(2 * one["lr"])
    longer, _, _ = calibrated(tmp_path / "3", "calibration.walk=0.001", "budget.queries=160")
    ratio = math.sqrt(longer["budget"]["queries"] / one["budget"]["queries"])
    assert one["lr"] == pytest.approx(ratio * longer["lr"])


def test_a_radius_is_chosen_and_used_and_the_table_shows_what_was_chosen(tmp_path):
    result, _, _ = calibrated(tmp_path, "method.eps=auto")
    found = result["calibration"]
    assert f"{found['eps']:g}" in found["fd_snr_db"]
    assert found["fd_snr_db"][f"{found['eps']:g}"] >= 20
    ended = zo_run("job=table", f"runtime.root={tmp_path}")
    assert f"auto: {result['lr']:.2g}" in ended.out


def test_drowned_in_noise_it_says_so_and_takes_the_documented_rate(tmp_path):
    noise = ("noise=injected", "noise.std=1e9", "noise.repeats=4")
    result, _, ended = calibrated(tmp_path, *noise, "calibration.probes=16", "budget.queries=100")
    assert result["lr"] == 7e-3
    assert (
        "zo-run: warning: the curvature drowns in evaluation noise: lr=0.007 is the method's documented one"
        in ended.err
    )


def test_a_scale_without_effect_is_said(tmp_path):
    ended = zo_run(*SMALL, f"runtime.root={tmp_path}", "method.lr_scale=0.3")
    assert ended.err == "zo-run: warning: method.lr_scale has no effect: method.lr is a number, and not auto\n"
