"""The ledger: what is charged, what is only booked, and that nothing is spent beyond the budget."""

import contextlib

import pytest
import torch

from tests.conformance.cases import method_of
from zo_runner.methods.queries import losses_at
from zo_runner.training.budget import CHARGED, Budget, Ledger
from zo_runner.training.noise import Noise
from zo_runner.training.objective import MeteredObjective, NoisyObjective


def loss():
    return torch.tensor(0.5)


@pytest.mark.parametrize(("purpose", "charged"), [("train", True), ("calibration", True), ("noise", False)])
def test_what_a_query_is_for_decides_whether_it_is_charged(purpose, charged):
    ledger = Ledger(Budget(queries=10))
    closure = MeteredObjective(ledger, loss, purpose=purpose, examples=4, tokens=30)
    for _ in range(3):
        assert closure() == 0.5
    assert ledger.charged == (3 if charged else 0)
    assert (purpose in CHARGED) == charged
    assert ledger.queries == {"train": 0, "calibration": 0, "noise": 0} | {purpose: 3}
    assert (ledger.examples, ledger.tokens) == ((12, 90) if charged else (0, 0))


def test_a_loss_with_its_gradient_is_three_queries_and_only_then_has_a_graph():
    theta, ledger = torch.ones(2, requires_grad=True), Ledger(Budget(queries=10))
    plain, differentiable = (
        MeteredObjective(ledger, lambda: (theta**2).sum(), examples=4, tokens=30, needs_grad=needs)
        for needs in (False, True)
    )
    assert not plain().requires_grad
    assert (ledger.queries["train"], ledger.examples, ledger.tokens) == (1, 4, 30)
    with torch.no_grad():
        assert differentiable().requires_grad
    assert (ledger.queries["train"], ledger.examples, ledger.tokens) == (4, 16, 120)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("budget", [Budget(queries=5), Budget(tokens=50)])
def test_a_gradient_that_the_budget_cannot_pay_is_refused_before_it_is_computed(budget):
    ledger, calls = Ledger(budget), []
    closure = MeteredObjective(ledger, lambda: calls.append(1) or loss(), tokens=10, needs_grad=True)
    closure()
    with pytest.raises(RuntimeError, match=rf"^Query 6 exceeds the budget of {budget}\.$"):
        closure()
    assert len(calls) == 1
    assert (ledger.charged, ledger.tokens) == (3, 30)


def test_nothing_is_spent_beyond_the_budget():
    ledger, calls = Ledger(Budget(queries=3)), []
    closure = MeteredObjective(ledger, lambda: calls.append(1) or loss(), examples=2)
    for _ in range(3):
        closure()
    for purpose in CHARGED:
        with pytest.raises(RuntimeError, match=r"^Query 4 exceeds the budget of 3 queries\.$"):
            MeteredObjective(ledger, lambda: calls.append(1) or loss(), purpose=purpose)()
    assert len(calls) == ledger.charged == 3
    assert ledger.examples == 6


class Line:
    """A loss that can be read at several points: t along every direction."""

    def __init__(self):
        self.read = 0

    def __call__(self):
        return torch.tensor(0.0)

    def supports(self, directions):
        return True

    def losses_at(self, directions, offsets):
        self.read += 1
        return torch.tensor([float(t) for _ in directions for t in offsets])


def test_points_that_are_read_at_once_are_as_many_queries_and_noise_of_their_own():
    ledger, line = Ledger(Budget(queries=6)), Line()
    closure = MeteredObjective(ledger, NoisyObjective(Noise(std=0.1, seed=3), line, ("train", 0)), examples=4, tokens=9)
    found = losses_at(closure, [[], []], (1.0, -1.0))
    assert (line.read, ledger.charged, ledger.examples, ledger.tokens) == (1, 4, 16, 36)
    one_by_one = NoisyObjective(Noise(std=0.1, seed=3), lambda: torch.tensor(0.0), ("train", 0))
    noise = [float(one_by_one()) for _ in range(4)]
    assert [x for row in found for x in row] == pytest.approx(
        [t + n for t, n in zip((1, -1, 1, -1), noise, strict=True)]
    )
    assert len(set(noise)) == 4
    with pytest.raises(RuntimeError, match=r"^Query 8 exceeds the budget of 6 queries\.$"):
        losses_at(closure, [[], []], (1.0, -1.0))
    assert (line.read, ledger.charged) == (1, 4)


@pytest.mark.parametrize("budget", [0, 1, 2, 7])
def test_affords_is_true_up_to_the_last_query(budget):
    ledger = Ledger(Budget(queries=budget))
    assert [ledger.affords(n, tokens=10**12) for n in range(budget + 3)] == [n <= budget for n in range(budget + 3)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"queries": 1, "tokens": 1},
        {"tokens": 1, "seconds": 1.0},
        {"queries": 1, "tokens": 1, "seconds": 1.0},
        {"queries": -1},
        {"seconds": float("nan")},
        {"seconds": -0.5},
    ],
)
def test_a_budget_is_one_number_that_is_not_negative(given):
    with pytest.raises(ValueError, match=r"^Invalid budget: .* Must be one number >= 0, and None for the others\.$"):
        Budget(**given)


@pytest.mark.parametrize(
    ("budget", "unit", "shown"),
    [
        (Budget(queries=40), "queries", "40 queries"),
        (Budget(tokens=2_000_000), "tokens", "2000000 tokens"),
        (Budget(seconds=60.0), "seconds", "60 seconds"),
    ],
)
def test_a_budget_knows_its_unit(budget, unit, shown):
    assert (budget.unit, str(budget)) == (unit, shown)
    assert budget.limit == getattr(budget, unit)


def test_a_budget_of_tokens_pays_up_to_the_last_token_whatever_the_number_of_queries():
    ledger = Ledger(Budget(tokens=100))
    closure = MeteredObjective(ledger, loss, tokens=30)
    for _ in range(2):
        closure()
    assert ledger.spent == 60
    assert [ledger.affords(1_000_000, tokens=n) for n in (0, 40, 41)] == [True, True, False]
    closure()
    with pytest.raises(RuntimeError, match=r"^Query 4 exceeds the budget of 100 tokens\.$"):
        closure()
    assert (ledger.charged, ledger.tokens) == (3, 90)
    MeteredObjective(ledger, loss, purpose="calibration", tokens=10)()
    with pytest.raises(RuntimeError, match="exceeds the budget of 100 tokens"):
        MeteredObjective(ledger, loss, purpose="calibration", tokens=1)()
    assert ledger.spent == 100


@pytest.mark.parametrize("unit", ["queries", "tokens", "seconds"])
def test_noise_and_evaluation_are_not_charged_in_any_unit(unit):
    ledger = Ledger(Budget(**{unit: 1}))
    MeteredObjective(ledger, loss, purpose="noise", examples=5, tokens=1000)()
    for phase in ("noise", "eval"):
        ledger.book(phase, 1000.0)
    assert ledger.spent == 0
    assert ledger.affords(1, tokens=1)


def test_a_budget_of_seconds_is_training_and_calibration_and_ends_between_steps():
    ledger = Ledger(Budget(seconds=2.0))
    ledger.book("calibration", 0.75)
    ledger.book("train", 1.0)
    assert ledger.affords(10**9, tokens=10**9)
    ledger.book("train", 0.25)
    assert ledger.spent == 2.0
    assert not ledger.affords(1, tokens=0)
    MeteredObjective(ledger, loss)()  # a step under way is not cut in two
    assert ledger.charged == 1


def test_operations_are_booked_for_charged_queries_only():
    done = [1000.0]

    def costs(amount):
        def closure():
            done[0] += amount
            return loss()

        return closure

    ledger = Ledger(Budget(queries=10), lambda: done[0])
    MeteredObjective(ledger, costs(5.0))()
    MeteredObjective(ledger, costs(7.0), purpose="calibration")()
    MeteredObjective(ledger, costs(100.0), purpose="noise")()
    costs(50.0)()
    MeteredObjective(ledger, costs(5.0))()
    assert ledger.flops == ledger.summary()["flops"] == 17.0


def test_a_query_that_fails_and_its_operations_are_still_spent():
    done = [0.0]

    def fails():
        done[0] += 3.0
        raise RuntimeError("out of memory")

    ledger = Ledger(Budget(queries=5), lambda: done[0])
    with pytest.raises(RuntimeError, match="out of memory"):
        MeteredObjective(ledger, fails, examples=2)()
    assert (ledger.charged, ledger.flops) == (1, 3.0)


def test_a_method_cannot_spend_past_the_ledger_and_keeps_its_parameters_when_it_tries(node, problem):
    method = method_of(node, problem)
    ledger = Ledger(Budget(queries=method.queries_per_step * 2 + 1))
    closure = MeteredObjective(ledger, problem.loss)
    for _ in range(2):
        method.step(closure)
    before = problem.values()
    assert not ledger.affords(method.queries_per_step, tokens=0)
    with pytest.raises(RuntimeError, match="exceeds the budget"):
        method.step(closure)
    assert all(map(torch.equal, problem.parameters, before))
    assert ledger.charged == ledger.budget.queries


def test_the_clock_books_each_phase_also_when_the_block_fails(monkeypatch):
    ticks = iter([10.0, 10.5, 20.0, 21.25, 30.0, 33.0])
    monkeypatch.setattr("zo_runner.training.budget.time.perf_counter", lambda: next(ticks))
    ledger = Ledger(Budget(queries=0))
    with ledger.clock("eval"):
        pass
    with contextlib.suppress(KeyError), ledger.clock("eval"):
        raise KeyError
    with ledger.clock("train"):
        pass
    assert ledger.seconds == {"train": 3.0, "calibration": 0.0, "noise": 0.0, "eval": 1.75}


def test_the_summary_is_a_copy_of_every_count():
    ledger = Ledger(Budget(queries=9))
    MeteredObjective(ledger, loss, examples=2, tokens=7)()
    ledger.evaluated += 11
    summary = ledger.summary()
    assert {k: v for k, v in summary.items() if k != "seconds"} == {
        "budget": {"queries": 9, "tokens": None, "seconds": None},
        "queries": {"train": 1, "calibration": 0, "noise": 0},
        "examples": 2,
        "tokens": 7,
        "flops": 0.0,
        "evaluated": 11,
    }
    assert set(summary["seconds"]) == {"train", "calibration", "noise", "eval"}
    summary["queries"]["train"] = 100
    summary["seconds"]["train"] = 100.0
    assert ledger.charged == 1
    assert ledger.seconds["train"] == 0.0
