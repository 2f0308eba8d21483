"""The configuration: every file composes, every range is checked, identity is what can change a number."""

import inspect
import math
import re
import shutil
from dataclasses import fields, is_dataclass

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from tests.cli.helpers import compose, configure, write_rows
from zo_runner import cli
from zo_runner.config import derived, identity, validation
from zo_runner.config.ineffective_keys import cautions, ineffective_keys
from zo_runner.config.instantiate import DESCRIPTION, build
from zo_runner.config.schema import MethodConfig, RunConfig
from zo_runner.errors import UserError
from zo_runner.tasks.files import fingerprint

CONF = cli.HOME / "conf"
FILES = sorted(f for f in CONF.rglob("*") if f.is_file() and f != CONF / "run.yaml")
CHOICES = [(f.parent.name, f.stem) for f in FILES]
SWEEPS = sorted((cli.HOME / "sweeps").iterdir())
METHODS = {f.stem: OmegaConf.to_container(OmegaConf.load(f)) for f in FILES if f.parent.name == "method"}


def identify(*overrides):
    return identity.run_id(identity.identify(configure(*overrides)))


# Every file


def test_every_configuration_file_is_a_choice_of_a_group():
    defaults = OmegaConf.load(CONF / "run.yaml").defaults
    groups = {group for node in defaults if not isinstance(node, str) for group in node}
    assert {group for group, _ in CHOICES} == {group for group in groups if not group.startswith("override")}
    assert [f.relative_to(CONF).as_posix() for f in FILES] == [f"{group}/{name}.yaml" for group, name in CHOICES]
    assert len(FILES) + 1 == len(list(CONF.rglob("*.y*ml")))
    assert all(f.suffix == ".yaml" for f in SWEEPS)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_under_its_own_name_and_passes_the_checks(group, name):
    needed = {"model/local": ["model.path=somewhere"], "task/jsonl": ["task.path=somewhere"]}
    cfg = compose(f"{group}={name}", *needed.get(f"{group}/{name}", []))
    assert cfg[group].name == name
    validation.check(cfg)
    assert cautions(cfg, {group}) == []


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_sweep_composes_and_names_its_command(file):
    cfg = compose(f"+sweeps={file.stem}")
    assert cfg.sweep.name == file.stem
    assert cfg.scale in cfg.sweep.scales
    assert f"zo-run -m +sweeps={file.stem}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("node", METHODS.values(), ids=METHODS.keys())
def test_a_method_file_lists_every_constructor_argument_and_nothing_else(node):
    arguments = set(inspect.signature(get_class(node["_target_"])).parameters) - {"params", "seed"}
    assert set(node) - DESCRIPTION == arguments | {"_target_", "_partial_"}
    assert node["_partial_"] is True
    assert {"name", "trains", "scaling"} <= set(node)
    assert {"lr_scale", "fallback"} & set(node) == (set() if node.get("needs_grad") else {"lr_scale", "fallback"})
    # The fall-backs are its own defaults; a method without a radius measures nothing, and has none.
    assert node.get("fallback") == ({"lr": node["lr"], "eps": node["eps"]} if "eps" in node else None)
    assert 0 < node["lr"] < math.inf


# Run identity


def test_the_same_command_is_the_same_run_whatever_the_order_of_its_words():
    first, second = (identity.identify(compose(*words)) for words in (("rank=4", "seed=1"), ("seed=1", "rank=4")))
    assert identity.run_id(first) == identity.run_id(second) == identify("rank=4", "seed=1")
    assert re.fullmatch("[0-9a-f]{10}", identify())
    for stream in ("data", "adapter", "order", "direction"):  # a seed of its own overrides that stream alone
        seeds = identity.identify(configure("seed=3", f"seeds.{stream}=5"))["seeds"]
        assert seeds == {"data": 3, "adapter": 3, "order": 3, "direction": 3} | {stream: 5}


def test_the_run_follows_from_what_can_change_a_number_and_from_nothing_else():
    """Words that a command line may hold; of every single key see below."""
    same = ["runtime.root=elsewhere", "tracker=none", "model=pocket_opt", "rank=8", "seeds.order=0"]
    other = ["runtime.dtype=bfloat16", "method=naive_atom", "method.scaling=rslora", "model=pocket_qwen3"]
    other += ["adapter=all_linear", "noise=none", "task=pocket_entailment", "task.version=2"]
    other += ["task.template='{text} So'", "seed=1", "seeds.order=1"]
    other += ["budget.queries=10", "budget.tokens=10", "budget.seconds=10"]
    assert {identify(word) for word in same} == {identify()}
    assert len({identify(), *map(identify, other)}) == 1 + len(other)


# Configurations in which different keys have no effect. None of them is run, so a lone weight can be a saved adapter.
SITUATIONS = {
    "one atom": ["method=ar1zo"],
    "all atoms": ["method=lora_zo"],
    "measured": ["method=ar1zo", "method.lr=auto", "method.eps=auto"],
    "measured rate": ["method=mezo", "method.lr=auto"],
    "measured radius": ["method=fzoo", "method.eps=auto"],
    "every parameter": ["method=mezo"],
    "gradient": ["method=fo_adamw"],
    "gradient of every parameter": ["method=fo_sgd", "method.trains=full"],
    "evaluation": ["job=evaluate"],
    "evaluation of an adapter": ["job=evaluate", "evaluate.adapter=SAVED"],
    "probe": ["job=probe"],
    "probe after steps": ["job=probe", "method=lora_zo", "probe.steps=3"],
    "probe of an adapter": ["job=probe", "probe.steps=3", "probe.adapter=SAVED"],
}
# Keys whose change needs a file, or that describe the class and are not chosen.
_FIXED = {"model.embedded", "task.path", "evaluate.adapter", "probe.adapter"}
_FIXED |= {"method.needs_grad", "method.adapter_only", "method.ineffective"}


def leaves(node, prefix=""):
    """Dotted keys of the values below a node; a list is a value, and so is an empty node."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def another(value, key):
    """A value of the same kind that is not this one."""
    if value is None:
        return 7 if key.startswith(("budget", "runtime", "step")) else "x"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value + 1
    return {"x": 1} if isinstance(value, dict) else value[:1] * 2 if isinstance(value, list) else f"{value}x"


def within(key, nodes):
    return any(f"{key}.".startswith(f"{node}.") for node in nodes)


@pytest.mark.parametrize("overrides", SITUATIONS.values(), ids=SITUATIONS.keys())
def test_the_run_follows_from_all_keys_but_those_without_effect(overrides, tmp_path):
    """Every key, changed alone: one in the table changes nothing, and any other makes another run."""
    (tmp_path / "adapter_model.safetensors").write_bytes(b"a weight")
    cfg = configure(*(override.replace("SAVED", str(tmp_path)) for override in overrides))
    validation.check(cfg)
    table, run = ineffective_keys(cfg), identity.run_id(identity.identify(cfg))
    assert identity.run_id(identity.identify(OmegaConf.merge(cfg, {"seed": 9}))) != run
    unseen = {*table, *identity.NO_NUMBER}
    unseen |= {f"runtime.{key}" for key in cfg.runtime if key != "dtype"}
    changed = {}
    for key, value in leaves(OmegaConf.to_container(cfg, resolve=True)):
        if key in {"job", "seed"} or within(key, _FIXED):
            continue
        OmegaConf.update(cfg, key, another(value, key), merge=False)
        changed[key] = identity.run_id(identity.identify(cfg)) != run
        OmegaConf.update(cfg, key, value, merge=False)
    assert {key for key, is_other in changed.items() if is_other} == {key for key in changed if not within(key, unseen)}


NAMED = {
    "one atom": {"method.lr_scale", "calibration", "evaluate", "probe"},
    "every parameter": {"rank", "alpha", "adapter", "seeds.adapter", "method.scaling"},
    "all atoms": {"method.order", "method.offsets"},
    "gradient": {"noise", "seeds.direction", "guard.slope"},
    "evaluation": {"method", "rank", "budget", "noise", "guard"},
    "probe": {"rank", "budget", "method.scaling", "method.atoms", "method.lr", "guard"},
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_key_without_effect_is_named_with_the_reason_when_it_was_typed(situation):
    cfg = configure(*SITUATIONS[situation])
    reasons = ineffective_keys(cfg)
    assert NAMED.get(situation, set()) <= set(reasons)
    for key in reasons:
        (note,) = cautions(cfg, {key})
        assert note.split(" has no effect: ") in [[key, reason] for reason in reasons.values()]
    assert cautions(cfg, {"method.eps", "seed", "task", "model", "batch_size", "runtime.threads", "tracker"}) == (
        [f"method.eps has no effect: {reasons['method']}"] if cfg.job == "evaluate" else []
    )


def test_neither_the_import_path_nor_the_declarations_of_a_method_make_the_run():
    known = identity.identify(configure("method=lora_zo"))
    assert {"_target_", "_partial_", "needs_grad", "adapter_only", "ineffective"}.isdisjoint(known["method"])
    assert "_target_" not in known["task"]
    assert known["method"]["name"] == "lora_zo"
    newer = configure("method=lora_zo")
    OmegaConf.update(newer, "method.version", 2, force_add=True)
    assert identity.run_id(identity.identify(newer)) != identify("method=lora_zo")


@pytest.mark.parametrize(
    ("given", "file"), [(["task=jsonl", "task.path="], "dev.jsonl"), (["model=local", "model.path="], "config.json")]
)
def test_a_folder_counts_by_its_content_and_not_by_its_place(tmp_path, given, file):
    first = write_rows(tmp_path / "first")
    (first / "config.json").write_text("{}", encoding="utf-8")
    shutil.copytree(first, tmp_path / "deeper" / "second")
    second = tmp_path / "deeper" / "second"
    *rest, key = given
    assert identify(*rest, f"{key}{first}") == identify(*rest, f"{key}{second}")
    content = (second / file).read_bytes()
    (second / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert identify(*rest, f"{key}{first}") != identify(*rest, f"{key}{second}")


def test_a_changed_block_of_a_large_file_is_noticed_at_both_ends(tmp_path):
    size, marks = 65 * (1 << 16), set()
    for mark in ([], [0], [size - 1]):
        content = bytearray(size)
        for place in mark:
            content[place] = 1
        (tmp_path / "model.safetensors").write_bytes(content)
        marks.add(fingerprint([tmp_path / "model.safetensors"]))
    assert len(marks) == 3


# build


def test_build_binds_the_arguments_and_leaves_out_the_description():
    bound = build(configure("method=ar1zo", "method.lr=0.5", "method.eps=0.25").method)
    assert bound.keywords == {"atoms": "one", "order": "cyclic", "offsets": "shared", "lr": 0.5, "eps": 0.25}


# Ranges


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *(
            (key, [0, -1])
            for key in ("rank", "batch_size", "runtime.threads", "runtime.checkpoint_every", "noise.every")
        ),
        *((f"budget.{key}", [0, -1]) for key in ("queries", "eval_every", "log_every")),
        *((key, [-1]) for key in ("seed", "step", "evaluate.shots", "probe.steps", "calibration.every")),
        *((f"seeds.{key}", [-1]) for key in ("data", "adapter", "order", "direction")),
        ("runtime.threads", [0, 65_537]),
        ("calibration.probes", [0, 10_001]),
        ("noise.repeats", [-1, 1]),
        ("probe.inits", [0]),
        ("probe.directions", [1, 7]),
        *((f"probe.{key}", [[], ["some"], ["one", "one"]]) for key in ("atoms", "scalings")),
        ("probe.ranks", [[], [0], [1, 1]]),
        *((key, [0.0, -1.0, math.inf, math.nan]) for key in ("alpha", "calibration.walk", "budget.seconds")),
        ("budget.tokens", [0.0, -1.0, 0.5, 1e6 + 0.5, math.inf, -math.inf, math.nan]),
        ("noise.std", [-0.5, math.inf, math.nan]),
        ("calibration.fd_snr_db", [math.inf, math.nan]),
        ("guard.slope", [1.0, math.inf]),
        ("guard.still", [1]),
        ("method.lr", [-1, math.nan, "fast", True, [1]]),
        ("method.eps", [0, math.inf, "fast"]),
        ("method.lr_scale", [0, "auto"]),
        ("method.fallback", [3, {"lr": 1}]),
        ("method.ineffective", [3, {"order": "all"}]),
        *((key, ["nonesuch"]) for key in ("job", "model.bos", "evaluate.split", "runtime.device_map", "runtime.dtype")),
        *((key, ["nonesuch"]) for key in ("runtime.evaluation", "tracker.mode", "method.scaling", "method.trains")),
        *((f"method.{key}", ["nonesuch"]) for key in ("needs_grad", "adapter_only")),
        *(
            (f"{kind}.name", ["../x", "a/b", "..", ".hidden", "-m", "a b", "a\n"])
            for kind in ("model", "task", "method")
        ),
    ],
)
def test_a_value_out_of_range_is_refused_by_key_value_and_range(key, values):
    for value in values:
        cfg = configure()
        if key.startswith("budget."):
            cfg.budget.queries = None
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        with pytest.raises(UserError) as refusal:
            validation.check(cfg)
        assert str(refusal.value).startswith(f"Invalid {key}: {value!r}. Must be ")
        assert str(refusal.value).endswith(".")


def ranged(schema, prefix=""):
    """Key and field of everything that has a range or options."""
    for known in fields(schema):
        if is_dataclass(known.type):
            yield from ranged(known.type, f"{known.name}.")
        elif known.metadata:
            yield prefix + known.name, known


@pytest.mark.parametrize(("key", "known"), [*ranged(RunConfig), *ranged(MethodConfig, "method.")])
def test_the_refusal_names_what_is_allowed(key, known):
    """Every field with a range, given a text: all options or bounds are named, and null where it is allowed."""
    with pytest.raises(UserError) as refusal:
        validation._check_field(key, ["nonesuch"] if "list" in str(known.type) else "nonesuch", known)
    start, allowed = str(refusal.value).split("Must be ")
    assert start.startswith(f"Invalid {key}: ")
    assert "nonesuch" in start
    for given in known.metadata.values():
        assert given is True or all(f"{each}" in allowed for each in (given if isinstance(given, tuple) else [given]))
    assert ("null" in allowed) == ("None" in str(known.type))


def budget_of(queries=None, tokens=None, seconds=None):
    return {"queries": queries, "tokens": tokens, "seconds": seconds}


@pytest.mark.parametrize(
    ("overrides", "granted"),
    [
        ([], budget_of(queries=2000)),
        (["budget.queries=null", "budget.tokens=2e6"], budget_of(tokens=2_000_000)),
        (["budget.queries=null", "budget.tokens=2000000"], budget_of(tokens=2_000_000)),
        (["budget.queries=null", "budget.seconds=60"], budget_of(seconds=60.0)),
    ],
)
def test_the_identity_holds_the_budget_in_all_units(overrides, granted):
    cfg = configure(*overrides)
    validation.check(cfg)
    budget = identity.identify(cfg)["budget"]
    assert budget == {**granted, "eval_every": 250}
    assert type(budget["tokens"]) is type(granted["tokens"])
    assert derived.granted(cfg) == granted


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["budget.queries=null"], f"Invalid budget: {budget_of()!r}. Must "),
        (["budget.tokens=2e6"], f"Invalid budget: {budget_of(2000, 2e6)!r}. Must "),
        (["budget.seconds=60"], f"Invalid budget: {budget_of(2000, None, 60.0)!r}. Must "),
        (
            ["budget.queries=null", "budget.tokens=1", "budget.seconds=1"],
            f"Invalid budget: {budget_of(None, 1.0, 1.0)!r}. Must ",
        ),
        (["runtime.device_map=auto", "runtime.device=cpu"], "Invalid runtime.device: 'cpu'. Must "),
        (["model=local"], "Invalid model.path: None. Must "),
        *(([f"+{key}=1"], f"Unknown key '{key}'") for key in ("foo", "runtime.foo", "budget.foo", "seeds.foo")),
    ],
)
def test_keys_that_do_not_fit_together_or_bypass_the_schema_are_refused(overrides, told):
    with pytest.raises(UserError) as refusal:
        validation.check(compose(*overrides))
    assert str(refusal.value).startswith(told)


@pytest.mark.parametrize(
    ("dtype", "eps", "warned"),
    [
        *(("bfloat16", eps, eps < 1e-2) for eps in (1e-3, 1e-2)),
        *(("float16", 1e-4, True), ("float32", 1e-3, False), ("float32", 1e-6, False)),
    ],
)
def test_a_radius_that_rounding_would_drown_is_pointed_out(dtype, eps, warned):
    notes = cautions(configure(f"runtime.dtype={dtype}", f"method.eps={eps}"), set())
    assert len(notes) == warned
    assert all(f"runtime.dtype={dtype} with method.eps={eps:g}" in note for note in notes)
