"""Hydra finds its plugins in this namespace, and nowhere else. What the plugin does stands in zo_runner/arena.py."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ArenaSweeper(BasicSweeper):
    """Hydra's own sweeper, but for `+sweeps=NAME`, whose runs are a plan and not a product.

    Jobs go to whatever launcher is configured, so `hydra/launcher=joblib` and its like work as they do everywhere.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra does, with a job that tells the sweep what became of it."""
        if config.sweep.name is not None:
            from zo_runner.arena import run_job as task_function
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the named sweep, or without one every combination of the lists on the command line."""
        if self.config is None or self.config.sweep.name is None:
            return super().sweep(arguments)
        from zo_runner.arena import sweep

        return sweep(self, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="arena",
    node=BasicSweeperConf(_target_=f"{__name__}.ArenaSweeper"),
    provider="zo-run",
)
