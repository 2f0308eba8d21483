"""A configuration names methods and tasks, and no other code."""

import json
import re
import sys
from unittest import mock

import pytest
from omegaconf import OmegaConf

from tests.cli.helpers import SMALL, configure, zo_run
from zo_runner.config import validation
from zo_runner.config.instantiate import build
from zo_runner.config.schema import HOME
from zo_runner.errors import UserError
from zo_runner.jobs.sweeps.plan import plan

MEZO = {"_target_": "zo_runner.methods.MeZO", "_partial_": True, "lr": 0.1, "eps": 0.1}

# Everything that is not a method or a task of ours, however it is reached.
TARGETS = [
    *("os.system", "builtins.eval", "subprocess.run", "torch.load", "torch.optim.SGD", "hydra.utils.instantiate"),
    *("zo_runner_.x", "zo_runner", ".zo_runner.methods.MeZO", "zo_runner.methods", "", 3, None, ["os.system"]),
    # along the attributes of our modules, to what these import
    *("zo_runner.cli.os.system", "zo_runner.methods.torch.load", "zo_runner.tasks.files.hashlib.new"),
    *("zo_runner.methods.MeZO.__init__.__globals__", "zo_runner.methods.__builtins__"),
    # functions and classes of our own that are neither
    *("zo_runner.records.provenance._git", "zo_runner.records.atomic_files.write_atomic", "zo_runner.cli.main"),
    *("zo_runner.tasks.files.read_text", "zo_runner.methods.base.require", "zo_runner.methods.base.StepReport"),
    *("zo_runner.records.run_directory.RunDirectory", "zo_runner.tasks.family.ABC", "zo_runner.methods.base.Callable"),
    "zo_runner.tasks.classification.Classification.load",
    # other ways to write a path
    *("zo_runner.methods.MeZO\n", "zo_runner/methods/MeZO", "zo_runner.methods..MeZO", "zo_runner.methods.mezo:MeZO"),
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_only_methods_and_tasks_are_built(target):
    with pytest.raises(UserError, match=r"\AInvalid _target_: "):
        build({"_target_": target, "_partial_": True})


@pytest.mark.parametrize(
    "extra",
    [
        {"x": {"_target_": "os.system", "command": "PROOF"}},
        {"x": [[{"_target_": "os.system", "command": "PROOF"}]]},
        {"x": {"a": {"b": [{"c": {"_target_": "os.system", "command": "PROOF"}}]}}},
        {"x": {"_target_": "zo_runner.methods.MeZO"}},
        {"fallback": {"_target_": "os.system", "command": "PROOF"}},
        {"name": {"_target_": "os.system", "command": "PROOF"}},
        {"_args_": [{"_target_": "os.system", "command": "PROOF"}]},
        {"_recursive_": False},
        {"_convert_": "object"},
        {"x": {"_args_": ["PROOF"]}},
        {"_partial_": False},
        {"_partial_": "true"},
        {"_partial_": {"_target_": "os.system", "command": "PROOF"}},
    ],
    ids=str,
)
def test_nothing_is_built_further_down_and_no_other_instruction_counts(extra, tmp_path):
    proof = tmp_path / "proof"
    node = json.loads(json.dumps({**MEZO, **extra}).replace("PROOF", f"touch {proof}"))
    for given in (node, OmegaConf.create(node)):
        with pytest.raises(UserError, match=r"\AInvalid _(target|args|partial|recursive|convert)_: "):
            build(given)
    assert not proof.exists()


def test_an_interpolation_cannot_smuggle_a_target_in():
    whole = OmegaConf.create({"path": "os", "method": {**MEZO, "_target_": "${path}.system"}})
    with pytest.raises(UserError, match=r"Invalid _target_: 'os\.system'"):
        build(whole.method)


def test_a_refused_target_imports_nothing(tmp_path):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')", encoding="utf-8")
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        for target in ("evil_module.f", "zo_runner.methods.evil_module.f", "zo_runner.tasks.evil_module.F"):
            with pytest.raises(UserError):
                build({"_target_": target})
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("task.template", value)
            for value in ("a${oc.decode:'1'}", "${oc.create:{a:1}}", "${${rank}:x}", "${now:%Y}")
        ),
        *(
            (key, "${oc.env:HOME}")
            for key in ("model.path", "tracker.project", "method.order", "adapter.target_modules")
        ),
    ],
)
def test_no_resolver_is_asked(key, value):
    """`oc.env` would write the environment to config.yaml and W&B."""
    cfg = configure("task=jsonl")
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError, match=rf"\AInvalid {key}: "):
        validation.check(cfg)


def test_a_reference_to_another_key_is_allowed():
    cfg = configure("method=ar1zo")
    OmegaConf.update(cfg, "tracker.project", "study-${rank}")
    validation.check(cfg)


HOSTILE = {
    "python tag": "name: !!python/object/apply:os.system ['touch PROOF']\n",
    "nested target": "name: x\n_target_: zo_runner.methods.MeZO\nx: [{_target_: os.system, command: touch PROOF}]\n",
    "other target": "name: x\n_target_: zo_runner.cli.os.system\n_partial_: true\ncommand: touch PROOF\n",
    "arguments": "name: x\n_target_: os.system\n_args_: [touch PROOF]\n",
    "environment": "name: x\n_target_: zo_runner.methods.MeZO\norder: ${oc.env:HOME}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_method_file_is_one_line_and_runs_nothing(text, tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / "conf" / "method").mkdir(parents=True)
    head = "trains: adapter\nscaling: canonical\nlr: 0.1\neps: 0.1\nfallback: {lr: 1, eps: 1}\n"
    file = tmp_path / "conf" / "method" / "evil.yaml"
    file.write_text(head + text.replace("PROOF", str(proof)), encoding="utf-8")
    root = tmp_path / "runs"
    ended = zo_run(f"--config-dir={tmp_path / 'conf'}", *SMALL, "method=evil", f"runtime.root={root}")
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("zo-run: error: ")
    assert not proof.exists()
    assert not list(root.rglob("config.yaml"))


@pytest.mark.parametrize("form", ["--experimental-rerun={}", "--exp {}", "--e={}"])
def test_hydras_rerun_from_a_pickle_is_refused(form, tmp_path):
    ended = zo_run(*form.format(tmp_path / "config.pickle").split(" "))
    assert ended.code == 1
    assert ended.err.startswith("zo-run: error: Invalid --experimental-rerun: ")


# Sweeps: files that say what is run, and nothing to Hydra


@pytest.mark.parametrize(
    "text",
    [
        "sweep: {scales: {pocket: {}}}\nhydra: {callbacks: {x: {_target_: os.system, command: touch PROOF}}}\n",
        "sweep: {scales: {pocket: {}}}\nmodel: {trust_remote_code: true}\n",
        "sweep: {title: '${oc.env:HOME}', scales: {pocket: {}}}\n",
        "sweep: !!python/object/apply:os.system ['touch PROOF']\n",
        "sweep: [1]\n",
        "sweep: &a {b: *a}\n",
        "sweep: {scales: {pocket: {settings: {hydra.job_logging.x: 1}}}}\n",
    ],
)
def test_a_hostile_sweep_is_one_line_and_runs_nothing(text, tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "evil.yaml").write_text(text.replace("PROOF", str(proof)), encoding="utf-8")
    (tmp_path / "conf").symlink_to(HOME / "conf")
    with mock.patch("hydra_plugins.zo_run_sweeps.HOME", tmp_path):
        ended = zo_run("-m", "+sweeps=evil", f"runtime.root={tmp_path / 'runs'}", "tracker=none", "sweep.dry_run=true")
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert not proof.exists()


LOCKED = [
    *("hydra.callbacks.x._target_", "hydra/launcher", "+hydra.job_logging.handlers.x", "hydra.sweep.dir", "~hydra"),
    *("++method._target_", "runtime.root", "model.trust_remote_code", "rank=1 seed", "-m", "hydra", "a b", "rank,seed"),
]


@pytest.mark.parametrize(
    ("key", "place"),
    [(key, "settings") for key in LOCKED] + [("hydra.sweep.dir", at) for at in ("grids", "tune", "tune of a grid")],
)
def test_a_sweep_cannot_set_what_is_not_a_value_of_a_run(key, place):
    scale = {
        "settings": {"settings": {key: 1}},
        "grids": {"grids": [{key: [1, 2]}]},
        "tune": {"tune": {key: [1, 2]}},
        "tune of a grid": {"grids": [{"rank": [1], "tune": {key: [1, 2]}}]},
    }[place]
    with pytest.raises(UserError, match=re.escape(key)):
        plan({"pocket": {**scale, "seeds": [0]}}, "pocket", {})
