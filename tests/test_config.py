"""The configuration: every file composes, every range is checked, identity is what can change a number."""

import inspect
import math
import re
import shutil

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from tests.cli.helpers import compose, configure, write_rows
from zo_runner import cli
from zo_runner.config import derived, identity, validation
from zo_runner.config.ineffective_keys import cautions
from zo_runner.config.instantiate import build
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
    groups = {
        group for node in OmegaConf.load(CONF / "run.yaml").defaults if not isinstance(node, str) for group in node
    }
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


@pytest.mark.parametrize(
    ("node", "described"),
    [
        pytest.param(node, {"name", "trains", "scaling", *({"lr_scale", "fallback"} & set(node))}, id=name)
        for name, node in METHODS.items()
    ],
)
def test_a_method_file_lists_every_constructor_argument_and_nothing_else(node, described):
    arguments = set(inspect.signature(get_class(node["_target_"])).parameters) - {"params", "seed"}
    assert set(node) == arguments | described | {"_target_", "_partial_"}
    assert node["_partial_"] is True


@pytest.mark.parametrize("node", METHODS.values(), ids=METHODS.keys())
def test_the_fall_backs_of_a_method_are_its_own_defaults(node):
    """A method without a radius measures nothing, and has none."""
    assert node.get("fallback") == ({"lr": node["lr"], "eps": node["eps"]} if "eps" in node else None)


# Run identity


def test_the_same_command_is_the_same_run_whatever_the_order_of_its_words():
    first, second = (identity.identify(compose(*words)) for words in (("rank=4", "seed=1"), ("seed=1", "rank=4")))
    assert identity.run_id(first) == identity.run_id(second) == identify("rank=4", "seed=1")
    assert re.fullmatch("[0-9a-f]{10}", identify())


@pytest.mark.parametrize(
    "override",
    [
        *("runtime.root=elsewhere", "runtime.device=cpu", "runtime.threads=2", "budget.log_every=7", "job=table"),
        *("runtime.evaluation=batched", "runtime.fold=true"),
        *("tracker=none", "tracker.mode=offline", "tracker.project=other", "tracker.entity=somebody"),
        *("model=pocket_opt", "rank=8", "seeds.order=0", "budget.name=other"),
    ],
)
def test_what_cannot_change_a_number_does_not_change_the_run(override):
    assert identify(override) == identify()


@pytest.mark.parametrize(
    "override",
    [
        *("runtime.dtype=bfloat16", "rank=4", "alpha=8", "seed=1", "batch_size=8", "seeds.order=1"),
        *("method=naive_atom", "method.lr=0.5", "method.eps=0.5", "method.order=random", "method.offsets=per_module"),
        *("method.scaling=rslora", "model=pocket_qwen3", "adapter=all_linear"),
        *("budget.queries=10", "budget.tokens=10", "budget.seconds=10", "budget.eval_every=10"),
        *("noise=none", "noise.repeats=4", "noise.std=0.1"),
        *("task=pocket_entailment", "task.num_train=10", "task.version=2", "task.template='{text} So'"),
    ],
)
def test_what_can_change_a_number_changes_the_run(override):
    assert identify(override) != identify()


@pytest.mark.parametrize("override", ["noise=none", "noise.std=0.1", "noise.repeats=4", "seeds.direction=3"])
def test_a_method_without_queries_of_losses_is_the_same_run_whatever_their_noise(override):
    assert identify("method=fo_adamw", override) == identify("method=fo_adamw")
    assert identify("method=ar1zo", override) != identify("method=ar1zo")
    key = override.split("=")[0]
    notes = cautions(configure("method=fo_adamw", override), {key})
    assert notes == [f"{key} has no effect: method=fo_adamw differentiates the loss, and queries none"]


@pytest.mark.parametrize(
    "override",
    [
        *("rank=4", "alpha=8", "adapter=all_linear", "adapter.target_modules=[q_proj]", "seeds.adapter=3"),
        "method.scaling=rslora",
    ],
)
def test_a_method_without_an_adapter_is_the_same_run_whatever_the_adapter(override):
    assert identify("method=mezo", override) == identify("method=mezo")
    assert identify("method=ar1zo", override) != identify("method=ar1zo")


@pytest.mark.parametrize("override", ["method.order=random", "method.offsets=per_module"])
def test_atom_choices_count_only_where_atoms_are_chosen(override):
    assert identify("method=lora_zo", override) == identify("method=lora_zo")
    assert identify("method=naive_atom", override) != identify("method=naive_atom")


@pytest.mark.parametrize("stream", ["data", "adapter", "order", "direction"])
def test_a_seed_of_one_stream_overrides_that_stream_alone(stream):
    seeds = identity.identify(configure("seed=3", f"seeds.{stream}=5"))["seeds"]
    assert seeds == {"data": 3, "adapter": 3, "order": 3, "direction": 3} | {stream: 5}


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
    file = tmp_path / "model.safetensors"
    size = 65 * (1 << 16)
    marks = {}
    for mark in (None, 0, size - 1):
        content = bytearray(size)
        if mark is not None:
            content[mark] = 1
        file.write_bytes(content)
        marks[mark] = fingerprint([file])
    assert len(set(marks.values())) == 3


# build


def test_build_binds_the_arguments_and_leaves_out_the_description():
    bound = build(configure("method=ar1zo", "method.lr=0.5", "method.eps=0.25").method)
    assert bound.keywords == {"atoms": "one", "order": "cyclic", "offsets": "shared", "lr": 0.5, "eps": 0.25}


# Ranges


@pytest.mark.parametrize(
    ("key", "value", "shown", "allowed"),
    [
        *((key, 0, "0", "an integer >= 1") for key in ("rank", "batch_size", "runtime.threads", "noise.every")),
        *((f"budget.{key}", 0, "0", "an integer >= 1") for key in ("queries", "eval_every", "log_every")),
        *((key, -1, "-1", "an integer >= 1") for key in ("rank", "budget.queries")),
        *((key, -1, "-1", "an integer >= 0") for key in ("seed", "noise.repeats")),
        *((f"seeds.{key}", -1, "-1", "an integer >= 0") for key in ("data", "adapter", "order", "direction")),
        ("noise.repeats", 1, "1", "0, or at least 2 to estimate a variance"),
        *(("alpha", value, str(float(value)), "a finite number > 0") for value in (0, -1, "inf", "nan")),
        *(("noise.std", value, str(float(value)), "a finite number >= 0") for value in (-0.5, "inf", "nan")),
        ("job", "tarin", "'tarin'", "one of evaluate, probe, replay, report, table, train"),
        ("runtime.device_map", "balanced", "'balanced'", "null, or auto"),
        ("runtime.dtype", "float64", "'float64'", "one of bfloat16, float16, float32"),
        ("runtime.evaluation", "fast", "'fast'", "one of auto, batched, sequential"),
        ("method.scaling", "none", "'none'", "one of canonical, rslora, topology"),
        ("method.trains", "all", "'all'", "one of adapter, full"),
        ("tracker.mode", "maybe", "'maybe'", "one of auto, offline, online"),
        *(
            (f"{kind}.name", value, repr(value), "letters, digits, dots, dashes and underscores")
            for kind in ("model", "task", "method")
            for value in ("../x", "a/b", "..", ".hidden", "-m", "a b", "a\n")
        ),
    ],
)
def test_a_value_out_of_range_is_refused_by_key_value_and_range(key, value, shown, allowed):
    cfg = configure()
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError) as refusal:
        validation.check(cfg)
    assert str(refusal.value).startswith(f"Invalid {key}: {shown}. Must be {allowed}")
    assert str(refusal.value).endswith(".")


def test_a_device_map_leaves_no_device_to_choose():
    with pytest.raises(UserError, match=r"Invalid runtime\.device: 'cpu'\. Must be auto with runtime\.device_map=auto"):
        validation.check(configure("runtime.device_map=auto", "runtime.device=cpu"))


@pytest.mark.parametrize(
    ("key", "value", "shown", "allowed"),
    [
        *(("tokens", value, str(float(value)), "an integer >= 1, such as 2e6.") for value in (0, -1, 0.5, 1e6 + 0.5)),
        *(("tokens", value, value, "an integer >= 1, such as 2e6.") for value in ("inf", "-inf", "nan")),
        *(("seconds", value, str(float(value)), "a finite number > 0.") for value in (0, -1, "inf", "nan")),
    ],
)
def test_a_budget_out_of_range_is_refused_in_its_own_unit(key, value, shown, allowed):
    with pytest.raises(UserError) as refusal:
        validation.check(configure("budget.queries=null", f"budget.{key}={value}"))
    assert str(refusal.value) == f"Invalid budget.{key}: {shown}. Must be {allowed}"


@pytest.mark.parametrize(
    ("overrides", "given"),
    [
        (["budget.queries=null"], {"queries": None, "tokens": None, "seconds": None}),
        (["budget.tokens=2e6"], {"queries": 2000, "tokens": 2e6, "seconds": None}),
        (["budget.seconds=60"], {"queries": 2000, "tokens": None, "seconds": 60.0}),
        (
            ["budget.queries=null", "budget.tokens=1", "budget.seconds=1"],
            {"queries": None, "tokens": 1.0, "seconds": 1.0},
        ),
    ],
)
def test_a_budget_of_no_unit_or_of_two_is_refused(overrides, given):
    with pytest.raises(UserError) as refusal:
        validation.check(configure(*overrides))
    assert str(refusal.value).startswith(f"Invalid budget: {given!r}. ")
    assert "Must be exactly one of queries, tokens and seconds" in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "granted"),
    [
        ([], {"queries": 2000, "tokens": None, "seconds": None}),
        (["budget.queries=null", "budget.tokens=2e6"], {"queries": None, "tokens": 2_000_000, "seconds": None}),
        (["budget.queries=null", "budget.tokens=2000000"], {"queries": None, "tokens": 2_000_000, "seconds": None}),
        (["budget.queries=null", "budget.seconds=60"], {"queries": None, "tokens": None, "seconds": 60.0}),
    ],
)
def test_the_identity_holds_the_budget_in_all_units(overrides, granted):
    cfg = configure(*overrides)
    validation.check(cfg)
    budget = identity.identify(cfg)["budget"]
    assert budget == {**granted, "eval_every": 250}
    assert type(budget["tokens"]) is type(granted["tokens"])
    assert derived.granted(cfg) == granted


def test_a_model_without_a_path_is_refused():
    with pytest.raises(UserError, match=r"^Invalid model\.path: None\. Must be a folder of a causal language model"):
        validation.check(configure("model=local"))


@pytest.mark.parametrize("override", ["+foo=1", "+runtime.foo=1", "+budget.foo=1", "+seeds.foo=1"])
def test_a_key_that_bypasses_the_schema_is_refused(override):
    key = override.strip("+").split("=")[0]
    with pytest.raises(UserError, match=f"^Unknown key '{re.escape(key)}'"):
        validation.check(compose(override))


# Cautions


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["method=mezo", "rank=4"], "rank"),
        (["method=mezo", "alpha=4"], "alpha"),
        (["method=mezo", "adapter=all_linear"], "adapter"),
        (["method=mezo", "seeds.adapter=1"], "seeds.adapter"),
        (["method=lora_zo", "method.order=random"], "method.order"),
        (["method=lora_zo", "method.offsets=per_module"], "method.offsets"),
    ],
)
def test_a_key_without_effect_is_named_when_it_was_typed(overrides, key):
    cfg = configure(*overrides)
    (note,) = cautions(cfg, {override.split("=")[0] for override in overrides})
    assert note.startswith(f"{key} has no effect: ")
    assert cautions(cfg, {"method"}) == []
    assert cautions(configure("method=ar1zo", *overrides[1:]), {key}) == []


@pytest.mark.parametrize(
    ("dtype", "eps", "warned"),
    [
        ("bfloat16", 1e-3, True),
        ("float16", 1e-4, True),
        ("bfloat16", 1e-2, False),
        ("float32", 1e-3, False),
        ("float32", 1e-6, False),
    ],
)
def test_a_radius_that_rounding_would_drown_is_pointed_out(dtype, eps, warned):
    notes = cautions(configure(f"runtime.dtype={dtype}", f"method.eps={eps}"), set())
    assert len(notes) == warned
    assert all(f"runtime.dtype={dtype} with method.eps={eps:g}" in note for note in notes)


def test_defaults_are_finite_and_legal_for_every_method():
    for name in METHODS:
        cfg = configure(f"method={name}")
        assert 0 < cfg.method.lr < math.inf
        assert cfg.budget.queries >= 2
