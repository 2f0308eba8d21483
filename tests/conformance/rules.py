"""Rules that a method keeps or breaks, as assertions, so that broken methods can be shown to fail them."""

import copy
import itertools

import torch

from tests.conformance.cases import same_bits

# Numbers that adding and subtracting does not bring back: a negative zero, a subnormal, one next to which eps vanishes.
HARD_TO_RESTORE = torch.tensor([-0.0, 1e-40, 3e7])


# Losses at the perturbed points, in turn, and what all of them have on top: the odd part makes the slope, the even one
# a curvature. Large, so that every step is long enough to measure its direction in float32.
ODD, EVEN = (1.0, -1.0), 1e-4


def _forced_step(method, problem, sign):
    """One step under given losses, 0 at theta: its change of theta, and the sum of losses times perturbations."""
    before, values, seen = problem.flat(), itertools.cycle(ODD), []

    def closure():
        shift = problem.flat() - before
        loss = sign * next(values) if shift.any() else 0.0
        seen.append((loss, shift))
        return torch.tensor(loss + EVEN * bool(shift.any()), dtype=torch.float64)

    method.step(closure)
    shifts = [shift for _, shift in seen if shift.any()]
    if method.two_sided:
        assert torch.allclose(shifts[0], -shifts[1], rtol=1e-5, atol=1e-6), "the queries are not around theta"
    return problem.flat() - before, sum(loss * shift for loss, shift in seen)


def assert_updates_along_what_was_perturbed(method, problem, steps):
    """On every step the update answers to the measured direction, downhill, and to no other.

    A momentum moves the parameters too, whatever is measured. So each step is taken twice from one state, with the
    losses negated in between: half the difference of the two updates is what the measured slopes do. Every step starts
    from the same parameters, since steps this long soon leave the numbers that float32 resolves.
    """
    start = problem.values()
    for step in range(steps):
        state = copy.deepcopy(method.state_dict())
        problem.set(start)
        opposite, _ = _forced_step(method, problem, -1.0)
        method.load_state_dict(state)
        problem.set(start)
        along, measured = _forced_step(method, problem, 1.0)
        answer = (opposite - along) / 2
        if method.normalizes == "coordinates":
            seen = measured.abs() > 0.05 * measured.abs().max()
            downhill = (answer[seen].sign() == measured[seen].sign()).double().mean()
            assert downhill == 1, f"step {step}: {downhill:.2f} of the coordinates go down the measured direction"
        else:
            cosine = torch.cosine_similarity(answer, measured, dim=0)
            text = f"step {step}: the update has cosine {cosine:.6f} with the measured direction"
            assert abs(cosine - 1) <= 1e-5, text


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
