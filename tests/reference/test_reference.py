"""Each method agrees with a transcription of its formulas that shares no code with it, only the random numbers.

A transcription is `tests/reference/NAME.py` for `conf/method/NAME.yaml`, at most 30 lines, with
`run(problem, z, *, lr, eps, steps)` and the method's own arguments, which have the same defaults. `z(shape, step,
*names)` gives the numbers of the stream ("direction", step, *names). That of a first-order method has no z and no eps,
but `problem.gradient`.
"""

import inspect
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conformance.cases import ADDED, ALPHA, FIRST_ORDER, METHODS, RANK, Problem, flatten, groups_of, method_of
from zo_runner.methods.random import normal

SEED, STEPS, LR, EPS = 5, 20, 0.05, 1e-3
MOST_LINES = 30
# Arguments under which everything happens within 20 steps: subspaces change, the Hessian does.
EVENTFUL = {"rank": 3, "interval": 6, "smoothing": 0.1, "beta": 0.7, "momentum": 0.6, "num_signs": 3}
EVENTFUL |= {"damping": 0.1, "floor": 0.1}


class ArrayProblem:
    """The same problem in NumPy: `theta`, or `A` and `B`, by module; the loss takes theta, or the weights' change."""

    def __init__(self, node, dtype):
        weights, groups = groups_of(node, dtype=dtype)
        self.full = node["trains"] == "full"
        self.alpha, self.rank = ALPHA, RANK
        self.frozen = {m: w.double().numpy() for m, w in weights.items()}
        if self.full:
            self.theta = {m: w.numpy() for m, w in weights.items()}
        else:
            self.A = {group["name"]: group["params"][0].numpy() for group in groups}
            self.B = {group["name"]: group["params"][1].numpy() for group in groups}
        like = Problem((weights, groups))
        self.inputs, self.signs = like.inputs.numpy(), like.signs.numpy()

    def weights(self, matrices):
        base = dict.fromkeys(matrices, 0.0) if self.full else self.frozen
        return {m: base[m] + matrices[m].astype(np.float64) for m in matrices}

    def loss(self, matrices):
        *inner, last = self.weights(matrices).values()
        hidden = self.inputs
        for w in inner:
            hidden = np.tanh(hidden @ w.T)
        return float(np.logaddexp(0.0, -self.signs * (hidden @ last.T)).mean())

    def gradient(self, matrices):
        """d loss / d W of every module, by the chain rule."""
        weights = self.weights(matrices)
        *inner, last = weights
        read = {inner[0]: self.inputs}
        for m, following in zip(inner, [*inner[1:], last], strict=True):
            read[following] = np.tanh(read[m] @ weights[m].T)
        out = read[last] @ weights[last].T
        back = -self.signs / (1 + np.exp(self.signs * out)) / out.size
        found = {}
        for m in (last, *reversed(inner)):
            found[m] = back.T @ read[m]
            back = back @ weights[m] * (1 - read[m] ** 2)  # not used for the first module, whose input is no tanh
        return {m: found[m] for m in weights}


def source(name):
    """The file of a transcription."""
    beside = Path(__file__).with_name(f"{name}.py")
    return beside if beside.is_file() or ADDED is None else ADDED / "reference" / f"{name}.py"


def transcription(name):
    return runpy.run_path(str(source(name)))["run"]


def eventful(name):
    """Other values of the arguments that a transcription knows."""
    known = set(inspect.signature(transcription(name)).parameters)
    return {argument: value for argument, value in EVENTFUL.items() if argument in known}


def reference(name, node, dtype, **settings):
    """The parameters at the end of the transcription's run, in the order of the parameter groups."""

    def z(shape, step, *names):
        return normal(shape, SEED, "direction", step, *names).to(dtype).numpy()

    problem = ArrayProblem(node, dtype)
    given = {} if name in FIRST_ORDER else {"z": z, "eps": EPS}
    end = transcription(name)(problem, **given, lr=LR, steps=STEPS, **settings)
    arrays = end.values() if problem.full else [x for pair in end.values() for x in pair]
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]


@pytest.mark.parametrize(
    ("name", "arguments", "dtype", "tolerance"),
    [
        *(pytest.param(name, {}, torch.float32, 1e-5, id=name) for name in METHODS),
        *(pytest.param(name, eventful(name), torch.float64, 1e-9, id=f"{name}-eventful") for name in METHODS),
    ],
)
def test_method_follows_its_transcription_for_20_steps(name, arguments, dtype, tolerance):
    node = METHODS[name]
    problem = Problem(groups_of(node, dtype=dtype))
    start = problem.flat()
    method = method_of(node, problem, lr=LR, eps=EPS, seed=SEED, **arguments)
    for _ in range(STEPS):
        method.step(problem.loss)
    expected = reference(name, node, dtype, **arguments)
    assert all(x.dtype == dtype for x in expected)
    assert (flatten(expected) - start).norm() > 0.01 * start.norm(), "the run is too short to tell methods apart"
    assert (problem.flat() - flatten(expected)).norm() <= tolerance * flatten(expected).norm()


def test_the_gradient_of_the_arrays_is_that_of_autograd():
    node = METHODS["mezo"]
    problem = ArrayProblem(node, torch.float64)
    exact = Problem(groups_of(node, dtype=torch.float64)).gradient()
    for ours, g in zip(problem.gradient(problem.theta).values(), exact, strict=True):
        np.testing.assert_allclose(ours, g, rtol=1e-12, atol=1e-15)


def test_the_transcriptions_differ_from_each_other():
    for trains, like in (("adapter", "ar1zo"), ("full", "mezo")):
        names = [name for name, found in METHODS.items() if found["trains"] == trains]
        ends = {name: flatten(reference(name, METHODS[like], torch.float64, **eventful(name))) for name in names}
        for one in names:
            for other in names:
                assert one == other or (ends[one] - ends[other]).norm() > 1e-2 * ends[one].norm()


def test_atomwise_methods_differ_only_in_alpha():
    """naive_atom with alpha r is ar1zo with alpha."""
    node = METHODS["ar1zo"]
    problem = Problem(groups_of({**node, "scaling": "canonical"}))
    for group in problem.groups:
        group["scaling"] *= RANK
    method = method_of(METHODS["naive_atom"], problem, lr=LR, eps=EPS, seed=SEED)
    for _ in range(STEPS):
        method.step(problem.loss)
    expected = flatten(reference("ar1zo", node, torch.float32))
    assert (problem.flat() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", METHODS)
def test_a_transcription_is_short_and_imports_nothing_of_the_package(name):
    text = source(name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert "zo_runner" not in text
