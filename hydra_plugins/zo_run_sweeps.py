"""Hydra finds its plugins in this namespace, and nowhere else. zo_runner.jobs.sweeps does the work."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from zo_runner.config import yaml_files
from zo_runner.config.schema import HOME
from zo_runner.config.validation import check_texts
from zo_runner.errors import invalid


class SweepSource(ConfigSource):
    """The group `sweeps`: `+sweeps=NAME` reads sweeps/NAME.yaml into the top of the configuration.

    Hydra's ConfigStore would do, but it must be filled before it is known what is asked for, and Hydra copies all of
    it whenever it composes: twice the time of every start, and of every job of a multirun.
    """

    @staticmethod
    def scheme() -> str:
        """As conf/run.yaml has it in `hydra.searchpath`."""
        return "sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        """The YAML of a sweep, which is called as its file is. It says what a sweep is, and nothing to Hydra."""
        file = (HOME / config_path).with_suffix(".yaml")
        values = yaml_files.read(file)
        if set(values) != {"sweep"} or not isinstance(values["sweep"], dict):
            raise invalid(str(file), sorted(values), "a file with one key, sweep")
        check_texts(values)
        node = OmegaConf.create({"sweep": {**values["sweep"], "name": file.stem}})
        return ConfigResult(self.provider, self.full_path(), node, header={"package": "_global_"})

    def available(self) -> bool:
        """Whether the folder is there."""
        return (HOME / "sweeps").is_dir()

    def is_group(self, config_path: str) -> bool:
        """There is one group."""
        return config_path.strip("/") == "sweeps"

    def is_config(self, config_path: str) -> bool:
        """Whether a sweep has that name."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group == "sweeps" and name in self.list(group, ObjectType.CONFIG)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The group at the top, the names of the sweeps in it."""
        if config_path.strip("/") == "":
            return [] if results_filter == ObjectType.CONFIG else ["sweeps"]
        if not self.is_group(config_path) or results_filter == ObjectType.GROUP:
            return []
        return sorted(file.stem for file in (HOME / "sweeps").glob("*.yaml"))


class ArenaSweeper(BasicSweeper):
    """Hydra's own sweeper, but for `+sweeps=NAME`, whose runs are a plan and not a product.

    Jobs go to whatever launcher is configured, so `hydra/launcher=joblib` and its like work as they do everywhere.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra does, with a job that tells the sweep what became of it."""
        if config.sweep.name is not None:
            from zo_runner.jobs.sweeps.sweep import run_job as task_function
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the named sweep, or without one every combination of the lists on the command line."""
        if self.config is None or self.config.sweep.name is None:
            return super().sweep(arguments)
        from zo_runner.jobs.sweeps.sweep import sweep

        return sweep(self, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="arena",
    node=BasicSweeperConf(_target_=f"{__name__}.ArenaSweeper"),
    provider="zo-run",
)
