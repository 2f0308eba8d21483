"""Test is read once: at the end, or later by the same command, with the same scores."""

import pytest

from tests.cli.helpers import SMALL, read_json, snapshot, the_run, zo_run

# A rate at which the last parameters are not the best on dev.
WORDS = (*SMALL, "budget.queries=60", "budget.eval_every=20", "runtime.threads=1")
RATES = {"mezo": "method.lr=6e-3", "ar1zo": "method.lr=4e-2"}


@pytest.mark.parametrize("method", RATES)
def test_a_test_left_unread_is_read_later_from_what_was_saved(method, tmp_path):
    words = (*WORDS, f"method={method}", RATES[method])
    later, at_once = (tmp_path / name for name in ("later", "at_once"))
    unread = zo_run(*words, "runtime.test=false", f"runtime.root={later}")
    assert (unread.code, "; test " in unread.out) == (0, False), unread.err
    run = the_run(later)
    kept = read_json(run / "result.json")
    assert (kept["tested"], kept["metrics"]["test"]) == (False, {})
    assert kept["metrics"]["dev"]["best"]["step"] < kept["metrics"]["dev"]["last"]["step"]
    assert zo_run(*words, f"runtime.root={later}").code == 0
    assert zo_run(*words, f"runtime.root={at_once}").code == 0
    one, other = read_json(run / "result.json"), read_json(the_run(at_once) / "result.json")
    for key in ("run_id", "status", "metrics", "queries", "tokens", "evaluated", "tested"):
        assert one[key] == other[key], key
    assert set(one["metrics"]["test"]) == {"best", "last"}
    assert not (run / "last").exists()


def test_only_a_test_that_was_not_read_is_read_later(tmp_path):
    for test, cached in (("false", False), ("false", True), ("true", False), ("false", True)):
        before = snapshot(tmp_path)
        ended = zo_run(*WORDS, f"runtime.test={test}", f"runtime.root={tmp_path}")
        assert ("cached, done" in ended.out, snapshot(tmp_path) == before) == (cached, cached)
