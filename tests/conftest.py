"""What all tests share: no network, one thread, and every method found in conf/method/ on a small problem."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from tests.conformance.cases import CASES, Problem, groups_of

torch.set_num_threads(1)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def node(request):
    """One file of conf/method/, loaded: the tests that ask for it run once for each, and for what it may train."""
    return request.param


@pytest.fixture
def problem(node):
    """A small problem of the kind that the method trains, in float32."""
    return Problem(groups_of(node))
