"""No method escapes the tests."""

import importlib
import inspect
import pkgutil

import zo_runner.methods
from tests.conformance.cases import METHODS
from zo_runner.config.instantiate import build
from zo_runner.methods import FirstOrder, Method, ZerothOrder

BASES = {Method, ZerothOrder, FirstOrder}


def _classes(module):
    return {c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Method)} - BASES


def test_every_exported_method_has_a_yaml_that_builds_it():
    assert METHODS
    built = {build(node).func for node in METHODS.values()}
    assert _classes(zo_runner.methods) <= built


def test_every_method_in_the_package_is_exported():
    folder = zo_runner.methods
    modules = [
        importlib.import_module(f"{folder.__name__}.{info.name}") for info in pkgutil.iter_modules(folder.__path__)
    ]
    assert set().union(*map(_classes, modules)) == _classes(folder)


def test_every_yaml_is_named_after_its_file():
    assert {stem: node["name"] for stem, node in METHODS.items()} == {stem: stem for stem in METHODS}
