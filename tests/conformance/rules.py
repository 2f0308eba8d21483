"""Rules that a method keeps or breaks, as assertions, so that broken methods can be shown to fail them."""

import itertools

import torch

from tests.conformance.cases import same_bits

# Numbers that adding and subtracting does not bring back: a negative zero, a subnormal, one next to which eps vanishes.
HARD_TO_RESTORE = torch.tensor([-0.0, 1e-40, 3e7])


def assert_updates_along_what_was_perturbed(method, problem, steps):
    """The step goes along the measured direction, downhill, on every step.

    The losses are given, 1 at theta + eps u and 0 at theta - eps u, so that every step is long enough to measure its
    direction in float32.
    """
    for step in range(steps):
        losses, seen = itertools.cycle((1.0, 0.0)), []

        def closure(losses=losses, seen=seen):
            seen.append(problem.flat())
            return torch.tensor(next(losses))

        before = problem.flat()
        method.step(closure)
        plus, minus = seen
        updated = problem.flat() - before
        cosine = torch.cosine_similarity(updated, minus - plus, dim=0)
        assert abs(cosine - 1) <= 1e-6, f"step {step}: the update has cosine {cosine:.6f} with the measured direction"
        middle = (plus + minus) / 2
        assert torch.allclose(middle, before, rtol=1e-6, atol=1e-6), f"step {step}: the queries are not around theta"


def assert_probe_leaves_every_bit(method, problem):
    """A step whose learning rate is 0 is a probe: it leaves every bit of the parameters, several times over."""
    for parameter in problem.parameters:
        parameter.flatten()[: len(HARD_TO_RESTORE)].copy_(HARD_TO_RESTORE)
    before = problem.values()
    for group in method.param_groups:
        group["lr"] = 0.0
    for step in range(10):
        method.step(problem.loss)
        assert same_bits(problem.parameters, before), f"the probe of step {step} changed a parameter"
