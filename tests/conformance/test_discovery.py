"""No method escapes the tests, and what its YAML declares is true of its class."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import zo_runner.methods
from tests.conformance.cases import METHODS, Problem, direction_of, groups_of, method_of
from zo_runner.config.instantiate import build
from zo_runner.methods import FirstOrder, Method, ZerothOrder

BASES = {Method, ZerothOrder, FirstOrder}
ANOTHER = {"order": "random", "offsets": "per_module"}


def _classes():
    """Every method of the package, by its modules."""
    for info in pkgutil.iter_modules(zo_runner.methods.__path__):
        module = importlib.import_module(f"{zo_runner.methods.__name__}.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Method) and kind.__module__ == module.__name__:
                yield kind


def test_every_method_in_the_package_has_a_yaml_that_builds_it():
    assert METHODS
    assert set(_classes()) - BASES <= {build(node).func for node in METHODS.values()}


def test_every_class_is_found_in_the_package_by_its_name():
    for kind in _classes():
        assert getattr(zo_runner.methods, kind.__name__) is kind
    with pytest.raises(AttributeError):
        zo_runner.methods.Tensor  # noqa: B018


def test_every_yaml_is_named_after_its_file():
    assert {stem: node["name"] for stem, node in METHODS.items()} == {stem: stem for stem in METHODS}


@pytest.mark.parametrize("node", METHODS.values(), ids=METHODS.keys())
def test_the_declarations_of_a_yaml_are_true_of_its_class(node):
    assert node.get("needs_grad", False) == build(node).func.needs_grad
    if node.get("adapter_only"):
        with pytest.raises(ValueError, match="parameter group"):
            method_of(node, Problem(groups_of({**node, "trains": "full"})))
    else:
        assert method_of(node, Problem(groups_of({**node, "trains": "full"})))


@pytest.mark.parametrize(
    ("node", "key"),
    [(node, key) for node in METHODS.values() for key in node.get("ineffective", {})],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_an_argument_that_is_declared_without_effect_has_none_there(node, key):
    where = node["ineffective"][key]
    methods = [method_of({**node, **where, **change}, Problem(groups_of(node))) for change in ({}, {key: ANOTHER[key]})]
    for step in range(3):
        assert torch.equal(*(direction_of(method, step) for method in methods))
