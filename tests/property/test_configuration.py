"""Broken words of the command line and broken sweep files: planned, or refused in one line, and no run is left."""

import functools
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from tests.cli.helpers import SMALL, configure, zo_run
from tests.property.broken import TEXTS, VALUES, altered, as_json, cases, command_accepted, spoiled
from zo_runner.config.overrides import word
from zo_runner.config.schema import HOME
from zo_runner.errors import UserError
from zo_runner.jobs import assemble, dispatch

pytestmark = pytest.mark.filterwarnings("ignore")

# Configurations that the words of a case are added to: methods of every sort, and everything that can be measured.
BASES = ((), ("method.lr=auto", "method.eps=auto"), ("method=mezo",), ("method=fo_adamw",))

WRITTEN = [
    *("", "null", "true", "no", "0", "-1", "1", "2", "65", "0x10", "1_0", "1e3", "1e999", "-1e999", "nan", "inf"),
    *("auto", "one", "all", "float16", "bfloat16", "batched", "probe", "evaluate", "cuda:7", "meta", "cpu", "[", "{}"),
    *("[]", "[1]", "[a,a]", "{a:1}", "{a:{b:[1]}}", "'a b'", '"', "'", "\\", "a,b", "range(3)", "int(a)", "os.system"),
    *("${seed}", "${rank}", "${nope}", "${method}", "${oc.env:NOPE}", "${now:%Y}", "${", "${a:${b", "???", "a=b", "é"),
    *("str([1])", "sort(2,1)", "shuffle(1,2)", "interval(0,1)", "glob(*)", "extend_list(a)", "[" * 200, "a" * 3_000),
    *("9" * 30, "9" * 5_000, "-" + "9" * 30, "1e-320", "\u2028", "\x00", "\ud800", "_target_"),
]  # fmt: skip

SCALE = {
    "settings": {"budget": "smoke", "task.num_train": 64},
    "grids": [{"method": ["lora_zo", "ar1zo"], "rank": [4, 16]}, {"method": ["mezo"]}],
    "tune": {"method.lr": [0.001, 0.01]},
    "tune_seeds": [0],
    "seeds": [0, 1],
    "protocol": {"budget": "forty queries"},
}
SWEEP = {"title": "Rank", "baseline": "lora_zo", "figures": ["rank", "noise"], "scales": {"pocket": SCALE}}


def keys_below(node, above=""):
    """Every key of a configuration but the folder of the runs."""
    for key in node if isinstance(node, DictConfig) else ():
        if f"{above}{key}" != "runtime.root":
            yield f"{above}{key}"
        yield from keys_below(node._get_node(key), f"{above}{key}.")


@functools.cache
def all_keys():
    return sorted({key for base in BASES for key in keys_below(configure(*base))})


@st.composite
def overrides(draw):
    """One word of a command line: mostly a known key, with any value in any spelling."""
    key = draw(st.sampled_from(all_keys()) if draw(st.integers(0, 9)) else TEXTS)
    key = draw(st.sampled_from(["", "", "", "", "", "+", "++", "~"])) + key
    return draw(
        VALUES.map(lambda value: word(key, value)) | (st.sampled_from(WRITTEN) | TEXTS).map(f"{key}={{}}".format)
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder to work in, where runs are assembled and do not begin."""

    def execute(cfg, known, directory):
        assemble.assemble(cfg)
        raise UserError("Everything is there.")

    folder, here = tmp_path_factory.mktemp("configurations"), os.getcwd()
    (folder / "sweeps").mkdir()
    (folder / "conf").symlink_to(HOME / "conf")
    os.chdir(folder)
    with mock.patch.object(dispatch, "_executor", return_value=execute):
        yield folder
    os.chdir(here)


@cases
@given(base=st.sampled_from(BASES), words=st.lists(overrides(), min_size=1, max_size=2))
def test_any_words_of_a_command_line_are_understood_or_refused(base, words, root):
    ended = zo_run(*SMALL, *base, *words, f"runtime.root={root / 'runs'}")
    if not command_accepted(ended):
        assert ended.out == ""
        assert sum(line.startswith("zo-run: error: ") for line in ended.err.splitlines()) == 1
    assert not list((root / "runs").glob("*/*"))


@cases
@given(content=spoiled(OmegaConf.to_yaml({"sweep": SWEEP}).encode()) | altered({"sweep": SWEEP}).map(as_json))
def test_a_broken_sweep_is_planned_or_refused(content, root):
    (root / "sweeps" / "mine.yaml").write_bytes(content)
    with mock.patch("hydra_plugins.zo_run_sweeps.HOME", root):
        words = ("-m", "+sweeps=mine", "sweep.dry_run=true", "tracker=none", f"runtime.root={root / 'runs'}")
        command_accepted(zo_run(*words))
    assert not list((root / "runs").glob("*/*/*/*"))
