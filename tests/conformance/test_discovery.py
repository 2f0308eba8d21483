"""No method escapes the tests."""

import importlib
import inspect
import pkgutil

import zo_runner.methods
from tests.conformance.cases import METHODS
from zo_runner.config.validation import build
from zo_runner.methods.base import Method
from zo_runner.methods.first_order import FirstOrder
from zo_runner.methods.zeroth_order import ZerothOrder


def test_every_method_of_the_package_has_a_yaml_that_builds_it():
    names = [f"zo_runner.methods.{info.name}" for info in pkgutil.iter_modules(zo_runner.methods.__path__)]
    found = [c for name in names for _, c in inspect.getmembers(importlib.import_module(name), inspect.isclass)]
    methods = {c for c in found if issubclass(c, Method)} - {Method, ZerothOrder, FirstOrder}
    assert methods == {build(node).func for node in METHODS.values()}


def test_every_yaml_is_named_after_its_file():
    assert {stem: node["name"] for stem, node in METHODS.items()} == {stem: stem for stem in METHODS}
