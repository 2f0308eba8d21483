"""zo-run called inside this process, on runs small enough to be made by the dozen."""

import contextlib
import functools
import io
import json
import os
import sys
import warnings
from dataclasses import dataclass
from unittest import mock

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from zo_runner import cli

SMALL = ("budget=smoke", "task.num_train=64", "task.num_dev=32", "task.num_test=32", "batch_size=4", "tracker=none")


@dataclass(frozen=True)
class Ended:
    """How a call of zo-run ended."""

    code: int
    out: str
    err: str


def zo_run(*words, env=None):
    """Call the console script's function as if `words` had been typed, and return how it ended.

    What it changes for the whole process (arguments, environment, warning filters, exit code) is put back.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["zo-run", *words]),
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(cli, "_exit_code", 0),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    return Ended(code or 0, out.getvalue(), err.getvalue())


def compose(*overrides, hydra_too=False):
    """The configuration that the command line would compose."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(cli.HOME / "conf"), version_base="1.3"):
        return hydra.compose("run", list(overrides), return_hydra_config=hydra_too)


_composed = functools.cache(compose)


def configure(*overrides):
    """As `compose`, a hundred times faster: groups are composed once, and plain keys are set on a copy."""
    groups = [override for override in overrides if (cli.HOME / "conf" / override.split("=")[0]).is_dir()]
    values = [override for override in overrides if override not in groups]
    return OmegaConf.merge(_composed(*groups), OmegaConf.from_dotlist(values))


def runs_below(root):
    """Run directories below `root`, finished or not."""
    return sorted(file.parent for file in root.rglob("config.yaml"))


def the_run(root):
    """The only run directory below `root`."""
    (run,) = runs_below(root)
    return run


def read_json(file):
    return json.loads(file.read_text(encoding="utf-8"))


def read_jsonl(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_journal(run):
    """The lines of a run's journal without what clocks say, and without the sums that hold it."""
    rows = read_jsonl(run / "journal.jsonl")
    for row in rows:
        del row["spent"]["seconds"], row["sum"]
    return rows


def snapshot(root):
    """Every file and folder below `root` with what would change if it were written again."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_size) for path in root.rglob("*")}


def write_rows(folder, **splits):
    """A folder for task=jsonl; a split that is not given has two good rows."""
    folder.mkdir(parents=True, exist_ok=True)
    good = [{"text": "The soup was bland.", "label": 0}, {"text": "The soup was tasty.", "label": 1}]
    for name in ("train", "dev", "test"):
        rows = splits.get(name, good)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
