"""The group `sweeps` and its sweeper, in the one namespace where Hydra finds plugins. See zo_runner.jobs.sweeps."""

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
        """The scheme that conf/run.yaml names in `hydra.searchpath`."""
        return "sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        """The YAML of a sweep, with the name of its file. It describes a sweep, and tells Hydra nothing."""
        file = (HOME / config_path).with_suffix(".yaml")
        values = yaml_files.read(file)
        if set(values) != {"sweep"} or not isinstance(values["sweep"], dict):
            raise invalid(str(file), sorted(values), "a file with one key, sweep")
        check_texts(values)
        node = OmegaConf.create({"sweep": {**values["sweep"], "name": file.stem}})
        return ConfigResult(self.provider, self.full_path(), node, header={"package": "_global_"})

    def available(self) -> bool:
        """True if there is a folder of sweeps."""
        return (HOME / "sweeps").is_dir()

    def is_group(self, config_path: str) -> bool:
        """True for the one group, sweeps."""
        return config_path.strip("/") == "sweeps"

    def is_config(self, config_path: str) -> bool:
        """True if a sweep has that name."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group == "sweeps" and name in self.list(group, ObjectType.CONFIG)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The group at the top, the names of the sweeps in it."""
        if config_path.strip("/") == "":
            return [] if results_filter == ObjectType.CONFIG else ["sweeps"]
        if not self.is_group(config_path) or results_filter == ObjectType.GROUP:
            return []
        return sorted(file.stem for file in (HOME / "sweeps").glob("*.yaml"))


class SweepsSweeper(BasicSweeper):
    """Hydra's own sweeper, except for `+sweeps=NAME`: its runs follow a plan, not a product of lists.

    Jobs go to whatever launcher is configured, so `hydra/launcher=joblib` and its like work as they do everywhere.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up as Hydra does, with a job that returns its outcome to the sweep."""
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
    name="sweeps",
    node=BasicSweeperConf(_target_=f"{__name__}.SweepsSweeper"),
    provider="zo-run",
)
