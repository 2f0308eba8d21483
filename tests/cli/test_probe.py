"""job=probe as a person uses it: a report whose numbers are those of the slopes it keeps, at three kinds of point."""

import math

import pytest

from tests.cli.helpers import SMALL, read_json, the_run, zo_run
from zo_runner.reporting.probe_report import read_cells

SIZES = ("task.num_train=64", "task.num_dev=32", "task.num_test=32", "batch_size=4")
PROBE = ("job=probe", *SIZES, "probe.ranks=[1,2]", "probe.directions=8", "probe.inits=4", "tracker=none")


def probed(root, *words):
    ended = zo_run(*PROBE, f"runtime.root={root}", *words)
    assert ended.code == 0, ended.err
    run = the_run(root)
    return {(c.atoms, c.scaling, c.rank): c for c in read_cells(run / "slopes.jsonl")}, run, ended


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return probed(tmp_path_factory.mktemp("probe"))


def test_every_cell_of_the_grid_is_measured(report):
    cells, run, ended = report
    assert len(cells) == 2 * 3 * 2
    assert all(len(c.slopes) == len(c.exact) == 8 and len(set(c.init)) == 4 for c in cells.values())
    result = read_json(run / "result.json")
    assert result["queries"] == {"probe": 12 * 8 * 2, "noise": 3 * 2 * 4 * 8}
    assert (result["job"], result["status"], result["cells"]) == ("probe", "done", 12)
    assert "| one     | canonical |" in ended.out
    assert ended.out.splitlines()[-1].startswith("probe of 12 cells; 192 queries, ")
    names = {"probe.md", "probe.csv", "probe.tex", "exponents.csv", "slopes.jsonl"}
    figures = {f"{name}.{kind}" for name in ("signal", "fd_snr", "sign_agreement") for kind in ("png", "svg")}
    assert names | figures <= {file.name for file in run.iterdir()}


def test_slopes_agree_with_the_exact_derivatives(report):
    """At eps = 1e-3 the embedded OPT's kinks leave some percent; without its noise, no sign is wrong but near 0."""
    cells, _, _ = report
    for cell in cells.values():
        size = math.sqrt(sum(e * e for e in cell.exact))
        error = math.sqrt(sum((g - e) ** 2 for g, e in zip(cell.slopes, cell.exact, strict=True)))
        assert error < 0.2 * size, cell.atoms


def test_cells_differ_by_scaling_alone(report):
    """At B = 0 a slope of the same direction goes with s: the directions, and the draws of A, are the same."""
    cells, _, _ = report
    canonical, topology = (cells["one", scaling, 2].exact for scaling in ("canonical", "topology"))
    assert list(topology) == pytest.approx([2 * e for e in canonical], rel=1e-4, abs=1e-7)
    assert cells["one", "canonical", 1].slopes == pytest.approx(cells["all", "topology", 1].slopes, abs=3e-4)


def test_it_is_cached_and_repeats_without_the_gradient_but_for_what_needs_it(report, tmp_path):
    cells, run, _ = report
    ended = zo_run(*PROBE, f"runtime.root={run.parents[3]}")
    assert "probe of 12 cells, cached; " in ended.out
    again, without, _ = probed(tmp_path, "probe.gradient=false")
    assert again.keys() == cells.keys()
    for key, cell in again.items():
        assert (cell.exact, cell.cosine, cell.slopes) == (None, None, cells[key].slopes)
    assert not (without / "sign_agreement.png").exists()


def test_added_noise_is_the_same_in_every_cell_and_is_measured(report, tmp_path):
    exact, _, _ = report
    noisy, _, _ = probed(tmp_path, "noise=injected", "noise.std=1e-3", "probe.inits=4", "probe.gradient=false")
    for key, cell in noisy.items():
        added = [g - e for g, e in zip(cell.slopes, exact[key].slopes, strict=True)]
        first = [
            g - e for g, e in zip(noisy["one", "canonical", 1].slopes, exact["one", "canonical", 1].slopes, strict=True)
        ]
        assert added == pytest.approx(first, abs=2e-3)
        assert 0.2e-6 < cell.sigma2 < 5e-6


def test_after_some_steps_the_point_is_another(report, tmp_path):
    cells, _, _ = report
    later, run, _ = probed(tmp_path, "probe.steps=3", "method.lr=0.05", "probe.inits=2", "probe.ranks=[2]")
    assert later["one", "topology", 2].exact[0] != cells["one", "topology", 2].exact[0]
    assert "after 3 steps of ar1zo at lr=0.05" in (run / "probe.md").read_text(encoding="utf-8")


def test_a_saved_adapter_is_probed_at_its_own_rank_and_scaling(tmp_path):
    assert zo_run(*SMALL, "method.lr=0.01", "rank=4", f"runtime.root={tmp_path / 'trained'}").code == 0
    saved = the_run(tmp_path / "trained") / "adapter"
    cells, run, _ = probed(tmp_path / "probed", f"probe.adapter={saved}", "probe.inits=1")
    assert set(cells) == {("one", "topology", 4), ("all", "topology", 4)}
    cell = cells["one", "topology", 4]
    error = math.sqrt(sum((g - e) ** 2 for g, e in zip(cell.slopes, cell.exact, strict=True)))
    assert error < 0.2 * math.sqrt(sum(e * e for e in cell.exact))
    assert str(saved) in (run / "probe.md").read_text(encoding="utf-8")


def test_half_precision_can_be_probed(tmp_path):
    words = ("probe.gradient=false", "probe.ranks=[1]", "runtime.dtype=bfloat16", "method.eps=1e-2", "probe.inits=1")
    cells, _, _ = probed(tmp_path, *words)
    assert all(math.isfinite(slope) for cell in cells.values() for slope in cell.slopes)
