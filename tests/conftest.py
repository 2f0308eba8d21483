"""What all tests share: no network, one thread, and the methods found in conf/method/ on a small problem."""

import gc
import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.conformance.cases import ZEROTH_ORDER, Problem, groups_of

torch.set_num_threads(1)

# `--hypothesis-profile=nightly` or HYPOTHESIS_PROFILE=nightly draws new cases every time; the default, always the same.
settings.register_profile("small", deadline=None, derandomize=True)
settings.register_profile(
    "nightly", deadline=None, max_examples=12_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "small"))


@pytest.fixture(params=ZEROTH_ORDER.values(), ids=ZEROTH_ORDER.keys())
def node(request):
    """One zeroth-order file of conf/method/, loaded: tests that ask for it run once for each and what it may train.

    Where a rule holds for methods of both orders, the test says `@every_method`.
    """
    return request.param


@pytest.fixture
def problem(node):
    """A small problem of the kind that the method trains, in float32."""
    return Problem(groups_of(node))


@pytest.fixture
def handlers():
    """A Ctrl-C is a KeyboardInterrupt, and the handlers of this process are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_collection_finish(session):
    """Modules and tests stay: garbage collections, one of which begins every run, need not look at them."""
    gc.freeze()
