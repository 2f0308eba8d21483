"""job=probe as a person uses it: a report whose numbers are those of the slopes it keeps, at three kinds of point."""

import math

import pytest

from tests.cli.helpers import SMALL, read_json, the_run, zo_run
from zo_runner.reporting.probe_report import read_cells

SIZES = ("task.num_train=64", "task.num_dev=32", "task.num_test=32", "batch_size=4")
PROBE = ("job=probe", *SIZES, "probe.ranks=[1,2,8]", "probe.directions=8", "probe.inits=4", "tracker=none")


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
    assert len(cells) == 2 * 3 * 3
    assert all(len(c.slopes) == len(c.exact) == 8 and len(set(c.init)) == 4 for c in cells.values())
    result = read_json(run / "result.json")
    assert result["queries"] == {"probe": 18 * 8 * 2, "noise": 3 * 3 * 4 * 8}
    assert (result["job"], result["status"], result["cells"]) == ("probe", "done", 18)
    assert "| one     | canonical |" in ended.out
    assert ended.out.splitlines()[-1].startswith("probe of 18 cells; 288 queries, ")
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
    for rank in (2, 8):
        canonical, topology = (cells["one", scaling, rank].exact for scaling in ("canonical", "topology"))
        assert list(topology) == pytest.approx([rank * e for e in canonical], rel=1e-4, abs=1e-7)
    assert cells["one", "canonical", 1].slopes == pytest.approx(cells["all", "topology", 1].slopes, abs=3e-4)


def test_it_repeats_and_is_cached(report, tmp_path):
    cells, run, _ = report
    again, _, _ = probed(tmp_path)
    assert again == cells
    ended = zo_run(*PROBE, f"runtime.root={run.parents[3]}")
    assert "probe of 18 cells, cached; " in ended.out


def test_added_noise_is_the_same_in_every_cell_and_is_measured(report, tmp_path):
    exact, _, _ = report
    noisy, _, _ = probed(tmp_path, "noise=injected", "noise.std=1e-3", "probe.inits=4")
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


def test_the_gradient_may_be_left_out(tmp_path):
    cells, run, _ = probed(
        tmp_path, "probe.gradient=false", "probe.ranks=[1]", "runtime.dtype=bfloat16", "method.eps=1e-2"
    )
    assert all(cell.exact is None and cell.cosine is None for cell in cells.values())
    assert not (run / "sign_agreement.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["probe.ranks=[0]"], "Invalid probe.ranks: [0]. Must be a list"),
        (["probe.ranks=[]"], "Invalid probe.ranks: []. Must be a list"),
        (["probe.atoms=[two]"], "Invalid probe.atoms: ['two']. Must be a list"),
        (["probe.directions=3", "probe.inits=4"], "Invalid probe.directions: 3. Must be an integer >= 4."),
        (["method=mezo"], "Invalid method: 'mezo'. Must be a method that trains an adapter, for job=probe."),
        (["method.eps=auto"], "Invalid method.eps: 'auto'. Must be a number, for job=probe."),
        (["probe.adapter=/nowhere"], "Invalid probe.adapter: '/nowhere'. Must be a folder that exists."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(words, told, tmp_path):
    ended = zo_run(*PROBE, f"runtime.root={tmp_path}", *words)
    assert (ended.code, ended.out) == (1, "")
    *warnings, line = ended.err.splitlines()
    assert line.startswith(f"zo-run: error: {told}")
    assert all(" has no effect: " in warning for warning in warnings)
    assert not list(tmp_path.rglob("result.json"))
