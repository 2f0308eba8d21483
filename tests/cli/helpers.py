"""zo-run called inside this process, on runs small enough to be made by the dozen."""

import contextlib
import functools
import io
import json
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from unittest import mock

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from zo_runner import cli

SMALL = ("budget=smoke", "task.num_train=64", "task.num_dev=32", "task.num_test=32", "batch_size=4", "tracker=none")
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Ended:
    """How a call of zo-run ended."""

    code: int
    out: str
    err: str


def zo_run(*words, env=None):
    """Call the console script's function as if `words` had been typed, and return how it ended.

    Hydra composes each choice of groups once in a process: see `configure`. Flags, sweeps and words that Hydra refuses
    go through Hydra itself. What zo-run changes for the whole process (arguments, environment, warning filters, exit
    code) is put back.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["zo-run", *words]),
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(cli, "_exit_code", 0),
        mock.patch.object(cli, "_job", functools.partial(_job, words, cli._job)),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    return Ended(code or 0, out.getvalue(), err.getvalue())


def at_once(*commands):
    """The ends of several commands, each in a process of its own, forked from this one, which has imported torch."""
    with ProcessPoolExecutor(len(commands), mp_context=FORK) as pool:
        return list(pool.map(_typed, commands))


def _typed(words):
    return zo_run(*words)


def _job(words, whole):
    """One job of a configuration that is composed from the cache, or `whole`: Hydra and the job."""
    try:
        cfg = configure(*words, hydra_too=True)
    except Exception:
        whole()
        return
    OmegaConf.update(cfg, "hydra.overrides.task", list(words))
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    whole.__wrapped__(cfg)


def compose(*overrides, hydra_too=False):
    """The configuration that the command line would compose."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(cli.HOME / "conf"), version_base="1.3"):
        return hydra.compose("run", list(overrides), return_hydra_config=hydra_too)


def configure(*words, hydra_too=False):
    """As `compose`, a hundred times faster: groups are composed once, and plain keys are set on a copy, as Hydra does.

    Raises:
        ValueError: a word that is no `key=value`, or has several values.
    """
    groups = tuple(word for word in words if (cli.HOME / "conf" / word.split("=")[0]).is_dir())
    cfg = _composed(*groups, hydra_too=hydra_too).copy()
    for override in (_parsed(word) for word in words if word not in groups):
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    return cfg


_composed = functools.cache(compose)


@functools.cache
def _parsed(word):
    if word.startswith(("-", "+", "~", "hydra")) or "=" not in word:
        raise ValueError(word)
    override = OverridesParser.create().parse_override(word)
    if override.package is not None or override.is_sweep_override():
        raise ValueError(word)
    return override


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
