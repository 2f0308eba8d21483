"""The plans of the named sweeps: every run composes offline."""

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.cli.helpers import compose, configure, zo_run
from zo_runner import cli
from zo_runner.config import validation
from zo_runner.jobs.sweeps.plan import plan
from zo_runner.jobs.sweeps.sweep import sweep_runs

SWEEPS = {file.stem: OmegaConf.load(file).sweep for file in sorted((cli.HOME / "sweeps").iterdir())}


PLANS = [(name, scale) for name, sweep in SWEEPS.items() for scale in sweep.scales]
SLOWLY = [pytest.param(*known, marks=() if known == ("rank_grid", "pocket") else pytest.mark.slow) for known in PLANS]


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_the_first_run_of_every_sweep_composes_and_is_legal(name, scale):
    made = plan(OmegaConf.to_container(SWEEPS[name].scales), scale, {})
    validation.check(configure(*made.words(made.rows[0], made.rows[0].candidates[0], 0)))


@pytest.mark.parametrize(("name", "scale"), SLOWLY)
def test_every_sweep_plans_every_run_offline_and_writes_nothing(name, scale, tmp_path):
    words = (f"+sweeps={name}", f"scale={scale}", "sweep.dry_run=true", "seed=0")
    ended = zo_run("-m", *words, f"runtime.root={tmp_path / 'runs'}")
    assert (ended.code, ended.err) == (0, "")
    runs = [line for line in ended.out.splitlines() if line.startswith("  open  zo-run ")]
    stages = [int(line.split()[2]) for line in ended.out.splitlines() if line.startswith("stage ")]
    assert sum(stages) == len(runs) > 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["noise", "main_opt", "signal_noise"])
def test_a_planned_run_is_what_its_command_composes_to(name):
    """A plan puts configurations together from parts; Hydra composes the same from the whole command."""
    cfg = compose(f"+sweeps={name}", "scale=pocket")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(cli.HOME / "conf"), version_base="1.3"):
        runs = sweep_runs(cfg, ["method=ar1zo", "rank=4", "alpha=3e-1"])
        jobs = [runs.candidates[i][-1][-1] for i in (0, -1)]
        for job in jobs:
            whole = hydra.compose("run", job.words)
            assert OmegaConf.to_yaml(job.cfg, resolve=True) == OmegaConf.to_yaml(whole, resolve=True)


def test_what_tests_configure_is_what_hydra_composes():
    words = ("method=mezo", "model=pocket_qwen3", "rank=3", "method.lr=auto", "probe.ranks=[2]", "budget.tokens=2e3")
    assert OmegaConf.to_yaml(configure(*words), resolve=True) == OmegaConf.to_yaml(compose(*words), resolve=True)
