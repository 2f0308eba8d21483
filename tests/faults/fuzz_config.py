"""Broken configurations: words of the command line, sweeps, and a run's config.yaml as job=table reads it.

Hydra takes a third of a second to compose. So most command lines are parsed by Hydra and applied by Hydra to what it
has composed before; some go the whole way through the console script. What is accepted is assembled, as a run would be,
and not run.
"""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins import zo_run_sweeps
from tests.faults.fuzz_kinds import TEXTS, VALUES, Kind, accepted, altered, spoiled, told
from zo_runner import cli
from zo_runner.config import yaml_files
from zo_runner.config.composition_errors import in_composition, one_line
from zo_runner.config.overrides import word
from zo_runner.config.schema import HOME
from zo_runner.errors import UserError
from zo_runner.jobs import assemble, dispatch, table
from zo_runner.jobs.sweeps.sweep import sweep_runs

# A run of 20 steps on 64 examples, without Weights & Biases: half a second.
SMALL = ("budget=smoke", "task.num_train=64", "task.num_dev=32", "task.num_test=32", "batch_size=4", "tracker=none")

# What the words of a case are added to: methods of every sort, and all that can be measured.
_BASES = (SMALL, (*SMALL, "method.lr=auto", "method.eps=auto"), (*SMALL, "method=mezo"), (*SMALL, "method=fo_adamw"))

_WRITTEN = [
    *("", "null", "true", "no", "0", "-1", "1", "2", "65", "0x10", "1_0", "1e3", "1e999", "-1e999", "nan", "inf"),
    *("auto", "one", "all", "float16", "bfloat16", "batched", "probe", "evaluate", "cuda:7", "meta", "cpu", "[", "{}"),
    *("[]", "[1]", "[a,a]", "{a:1}", "{a:{b:[1]}}", "'a b'", '"', "'", "\\", "a,b", "range(3)", "int(a)"),
    *("${seed}", "${rank}", "${nope}", "${method}", "${oc.env:NOPE}", "${now:%Y}", "${", "${a:${b", "???", "a=b"),
    *("str([1])", "sort(2,1)", "shuffle(1,2)", "interval(0,1)", "glob(*)", "extend_list(a)", "[" * 200, "a" * 3_000),
    *("9" * 30, "9" * 5_000, "-" + "9" * 30, "1e-320", "\u2028", "\x00", "é", "\ud800", "_target_", "os.system"),
]  # fmt: skip

# A sweep with everything that a sweep may have.
_SWEEP = """\
sweep:
  title: Accuracy against rank
  question: What does a higher rank cost?
  baseline: lora_zo
  figures: [rank, noise]
  scales:
    pocket:
      settings: {budget: smoke, task.num_train: 64, tracker: none}
      grids:
        - {method: [lora_zo, ar1zo], rank: [4, 16]}
        - {method: [mezo]}
      tune: {method.lr: [0.001, 0.01]}
      tune_seeds: [0]
      seeds: [0, 1]
      protocol: {budget: forty queries}
"""


@functools.cache
def configuration(*words: str) -> DictConfig:
    """What the command line would compose."""
    with hydra.initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        return hydra.compose("run", list(words))


def kinds(folder: Path) -> Iterator[Kind]:
    """Every way in which a configuration gets in.

    Args:
        folder: to work in.
    """
    folder.mkdir()
    keys = sorted({key for words in _BASES for key in _keys(configuration(*words))})
    words = st.lists(_words(keys), min_size=1, max_size=2)
    check = functools.partial(_overrides, folder)
    yield Kind("yaml, words of a command line", st.tuples(st.sampled_from(_BASES), words), check, 2)
    check = functools.partial(_command, folder)
    yield Kind("yaml, zo-run with such words", words, check, 0.1)
    sweeps = folder / "sweeps"
    sweeps.mkdir()
    check = functools.partial(_sweep_file, folder, sweeps / "mine.yaml")
    yield Kind("yaml, sweep, bytes", spoiled(_SWEEP.encode()), check)
    plain = OmegaConf.to_container(OmegaConf.create(_SWEEP))
    yield Kind("yaml, sweep, values", altered(plain), functools.partial(_sweep, folder))
    run = folder / "t" / "m" / "ar1zo" / "s0-0123456789"
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}")
    saved = OmegaConf.to_yaml(configuration(*SMALL), resolve=True).encode()
    check = functools.partial(_saved, run / "config.yaml")
    yield Kind("yaml, config.yaml for job=table", spoiled(saved), check)


def _keys(node: Any, above: str = "") -> Iterator[str]:
    for key in node if isinstance(node, DictConfig) else ():
        name = f"{above}{key}"
        if name != "runtime.root":  # folders are made there
            yield name
        yield from _keys(node._get_node(key), f"{name}.")


@st.composite
def _words(draw: DrawFn, keys: list[str]) -> str:
    key = draw(st.sampled_from(keys) if draw(st.integers(0, 9)) else TEXTS)
    key = draw(st.sampled_from(["", "", "", "", "", "+", "++", "~"])) + key
    how = draw(st.integers(0, 2))
    if how == 0:
        return word(key, draw(VALUES))
    return f"{key}={draw(st.sampled_from(_WRITTEN) if how == 1 else TEXTS)}"


# A command line


@contextlib.contextmanager
def _assembling(folder: Path) -> Iterator[None]:
    """Within the block runs are assembled in `folder` and left at that."""

    def execute(cfg: DictConfig, known: dict[str, Any], directory: Any) -> dict[str, Any]:
        assemble.assemble(cfg)
        raise _Assembled

    threads, here = torch.get_num_threads(), Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.object(dispatch, "_executor", return_value=execute):
            yield
    finally:
        os.chdir(here)
        torch.set_num_threads(threads)


class _Assembled(Exception):  # no error
    """Everything was there, and a run would begin."""


def _overrides(folder: Path, case: tuple[tuple[str, ...], list[str]]) -> bool:
    base, words = case
    cfg = configuration(*base).copy()
    try:
        overrides = OverridesParser.create().parse_overrides(list(words))
        ConfigLoaderImpl.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=True)
        ConfigLoaderImpl._apply_overrides_to_config(overrides, cfg)
    except Exception:  # main() has a line for whatever Hydra raises here, as the next kind shows
        return False
    try:
        with _assembling(folder):
            cli._run(cfg, list(words))
    except _Assembled:
        return True
    except UserError as error:
        told(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        told(one_line(error))
    return False


def _command(folder: Path, words: list[str]) -> bool:
    out, err = io.StringIO(), io.StringIO()
    with (
        _assembling(folder),
        mock.patch.object(sys, "argv", ["zo-run", *SMALL, *words]),
        mock.patch.object(cli, "_exit_code", 0),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    lines = err.getvalue().splitlines()
    if lines and lines[-1].endswith("error: _Assembled: "):
        return True
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert code == 1, f"exit code {code}"
    assert not out.getvalue(), out.getvalue()
    refusals = [line for line in lines if not line.startswith("zo-run: warning: ")]
    assert len(refusals) == 1, f"{len(refusals)} lines: {err.getvalue()}"
    assert refusals[0].startswith("zo-run: error: "), refusals[0]
    return False


# Sweeps


def _sweep_file(folder: Path, file: Path, case: bytes) -> bool:
    file.write_bytes(case)
    read: list[DictConfig] = []

    def load() -> None:
        with mock.patch.object(zo_run_sweeps, "HOME", folder):
            source = zo_run_sweeps.SweepSource("zo-run", "sweeps://")
            read.append(source.load_config("sweeps/mine").config)  # type: ignore[arg-type]  # DictConfig is what it is

    return accepted(load, "mine.yaml") and _sweep(folder, read[0])


_bases: dict[str, DictConfig] = {}


def _sweep(folder: Path, case: Any) -> bool:
    if not isinstance(case, dict | DictConfig):
        return False  # Hydra says what it is
    base = configuration("tracker=none").copy()
    OmegaConf.set_struct(base, False)  # as Hydra has it while it composes

    def plan() -> None:
        node = OmegaConf.create(case) if isinstance(case, dict | list) else case
        cfg = OmegaConf.merge(base, {"sweep": {"name": "mine"}}, node)
        OmegaConf.set_struct(cfg, True)
        runs = sweep_runs(cfg, [])
        runs._bases = _bases
        if len(runs.plan.rows) * len(runs.plan.seeds) <= 12:
            assert len(runs.digest) == 6
            assert all(job.seed in runs.plan.tune_seeds for job in runs.trials)

    try:
        with hydra.initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
            return accepted(plan)
    except (HydraException, OmegaConfBaseException) as error:
        told(one_line(error))
    except Exception as error:
        if not in_composition(error):
            raise
    return False


# job=table


def _saved(file: Path, case: bytes) -> bool:
    file.write_bytes(case)
    cfg = configuration(*SMALL, "job=table")

    def agrees() -> None:
        table.agrees(yaml_files.read(file), cfg, ["rank", "method.name", "task.path"])

    return accepted(agrees, "config.yaml")
