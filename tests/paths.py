"""Every rule holds on every path: perturbations written to parameters, or added from outside as `low_rank_parts`.

A folder whose conftest.py imports what stands here runs its tests on both.
"""

import pytest
import torch

from tests.conformance.cases import METHODS, Problem, groups_of, method_of
from zo_runner.methods import queries
from zo_runner.methods.directions import LazyDirection
from zo_runner.methods.queries import finite

PATHS = ("written", "low_rank")


def pytest_generate_tests(metafunc):
    """The second path only where a direction has few numbers."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", PATHS, indirect=True)


def pytest_collection_modifyitems(config, items):
    """Leave out what would repeat the first path: tests without a method, or with one of dense directions only."""
    kept, left = [], []
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        node = params.get("node") or METHODS.get(params.get("name"))
        repeats = params.get("path") == "low_rank" and not (node and has_low_rank_parts(node))
        (left if repeats else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def has_low_rank_parts(node):
    """True if the directions of a method are also known as few numbers."""
    kind = node["_target_"], node["trains"]
    if kind not in _LOW_RANK:
        method = method_of(node, Problem(groups_of(node)))
        _LOW_RANK[kind] = not method.needs_grad and method.direction(0).low_rank_parts is not None
    return _LOW_RANK[kind]


_LOW_RANK = {}


@pytest.fixture(autouse=True)
def path(request, monkeypatch):
    """Under "low_rank" the loss is read where `low_rank_parts` say that the perturbed point is."""

    def read_at_low_rank_parts(closure, direction, offsets):
        assert isinstance(direction, LazyDirection)
        shares = [(u.param, u.param.clone(), dense(u)) for u in direction.low_rank_parts]
        losses = []
        try:
            for t in offsets:
                for param, origin, u in shares:
                    param.copy_(torch.where(u == 0, origin, torch.add(origin, u, alpha=t)))
                losses.append(finite(closure()))
        finally:
            for param, origin, _ in shares:
                param.copy_(origin)
        return losses

    if request.param == "low_rank":
        monkeypatch.setattr(queries, "_one_by_one", read_at_low_rank_parts)
    return request.param


def dense(u):
    """What few numbers stand for, in the parameter's shape."""
    if u.left is None:
        return u.right
    left, right = (
        torch.eye(size)[:, side : side + 1] if isinstance(side, int) else side
        for side, size in zip((u.left, u.right), u.param.shape, strict=True)
    )
    return left @ right.T
