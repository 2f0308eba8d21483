"""Values that a job cannot use: one line that names key and value, exit code 1, and nothing is written."""

import pytest

from tests.cli.helpers import SMALL, zo_run

SIZES = [word for word in SMALL if word.startswith(("task", "tracker"))]

# The last word of a line is the one to be refused.
REFUSED = """
budget.queries=null budget.tokens=many
budget.queries=null budget.seconds=-1
method.lr=fast
method.eps=0
method.lr_scale=0
calibration.every=-1
calibration.walk=0
calibration.probes=0
method.lr=auto budget.queries=84
job=evaluation
job=evaluate evaluate.shots=65
job=evaluate evaluate.shots=-1
job=evaluate evaluate.split=train
job=evaluate evaluate.adapter=/nowhere
job=evaluate evaluate.adapter=.
job=evaluate model.bos=other
job=evaluate model=pocket_qwen3 model.bos=mezo
job=probe probe.ranks=[0]
job=probe probe.ranks=[]
job=probe probe.atoms=[two]
job=probe probe.inits=4 probe.directions=3
job=probe method=mezo
job=probe method.eps=auto
job=probe probe.adapter=/nowhere
-m +sweeps=rank_grid scale=huge
-m +sweeps=rank_grid sweep.select=test
-m +sweeps=rank_grid sweep.match=steps
-m +sweeps=rank_grid sweep.figures=[pie]
-m +sweeps=rank_grid sweep.published=[nobody]
-m +sweeps=rank_grid rank=0
"""


def refused(root, *words):
    ended = zo_run(*words, f"runtime.root={root / 'runs'}")
    assert (ended.code, ended.out, list(root.rglob("result.json"))) == (1, "", [])
    *warnings, line = ended.err.splitlines()
    assert all(" has no effect: " in warning for warning in warnings)
    return line.removeprefix("zo-run: error: ")


@pytest.mark.parametrize("words", REFUSED.strip().splitlines())
def test_a_value_is_refused_by_key_and_value(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key, value = words.split()[-1].split("=")
    told = refused(tmp_path, *SIZES, *words.split())
    assert told.startswith(f"Invalid {key}: ")
    assert value.strip("[]") in told.split("Must")[0]


def test_two_units_of_a_budget_a_key_that_is_none_and_a_sweep_without_m_are_refused(tmp_path):
    assert refused(tmp_path, "budget.tokens=2e6").startswith("Invalid budget: {'queries': 2000, 'tokens': 2000000.0")
    assert refused(tmp_path, "-m", "+sweeps=rank_grid", "rnk=3").startswith("Unknown key 'rnk'.")
    assert refused(tmp_path, "+sweeps=rank_grid") == "A sweep needs -m: zo-run -m +sweeps=rank_grid."
