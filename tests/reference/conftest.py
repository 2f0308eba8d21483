"""The tests of this folder run on every path of evaluation."""

from tests.paths import path, pytest_collection_modifyitems, pytest_generate_tests

__all__ = ["path", "pytest_collection_modifyitems", "pytest_generate_tests"]
