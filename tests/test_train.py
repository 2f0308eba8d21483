"""The loop: what is spent is what was granted, dev is read on time, and the best is the best on dev."""

import itertools
import math
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from zo_runner.methods import AR1ZO, FOSGD, MeZO
from zo_runner.models.encoding import Encoded
from zo_runner.models.evaluator import Score
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.meters import Coverage
from zo_runner.training.noise import Noise
from zo_runner.training.sampler import BatchOrder
from zo_runner.training.step import Stepper
from zo_runner.training.trainer import Trainer

SIZE, BATCH = 10, 4
EXAMPLES = [Encoded((i, i + 1), ((0,), (1,)), (i % 2,)) for i in range(SIZE)]


class Rows(list):
    """A batch of the fake evaluator."""

    @property
    def tokens(self):
        return sum(len(example.prefix) for example in self)


@dataclass
class Bowl:
    """An evaluator without a model: a bowl over one parameter vector, dev scores from a script."""

    theta: torch.Tensor
    scores: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    scored: int = 0
    perturbed: None = None  # queries write to the parameter

    def batches(self, examples, extra_padding=0):
        return [Rows(examples[:1]), Rows(examples[1:])]

    def loss(self, *batches):
        self.seen.append([example.prefix[0] for batch in batches for example in batch])
        return (self.theta**2).sum()

    def score(self, examples):
        self.scored += 1
        return self.scores.pop(0) if self.scores else Score(1.0 / self.scored, {"accuracy": 0.5})


@dataclass
class Notes:
    """An observer that writes everything down."""

    steps: list = field(default_factory=list)
    events: list = field(default_factory=list)
    improvements: list = field(default_factory=list)
    states: list = field(default_factory=list)

    def on_step(self, taken, readings):
        self.steps.append((taken.report, dict(readings)))

    def on_log(self, event):
        self.events.append(event)

    def on_best(self):
        self.improvements.append(len(self.steps))

    def on_checkpoint(self, method, state):
        self.states.append((method.steps, state))

    def dev(self):
        return [event["queries"] for event in self.events if "dev/loss" in event]


def fo_sgd(params, *, lr, eps):
    """As the others are called; it has no radius."""
    return FOSGD(params, lr=lr)


def trainer(*, queries=20, eval_every=8, log_every=3, noise=None, scores=(), method=MeZO, lr=0.01, budget=None):
    theta = torch.ones(3)
    stepper = Stepper(
        method=method([theta], lr=lr, eps=1e-3),
        evaluator=Bowl(theta, list(scores)),
        train=EXAMPLES,
        order=BatchOrder(SIZE, BATCH, 0),
        ledger=Ledger(budget or Budget(queries=queries)),
        noise=noise or Noise(repeats=0),
    )
    return Trainer(stepper=stepper, dev=EXAMPLES[:3], eval_every=eval_every, log_every=log_every, observer=Notes())


# Budget


@pytest.mark.parametrize(("queries", "steps"), [(2, 1), (3, 1), (20, 10), (21, 10)])
def test_the_number_of_steps_follows_from_the_budget(queries, steps):
    t = trainer(queries=queries)
    outcome = t.fit()
    assert outcome.status == "done"
    assert [report.step for report, _ in t.observer.steps] == list(range(steps))
    assert t.ledger.queries == {"train": 2 * steps, "calibration": 0, "noise": 0}
    assert t.ledger.examples == 2 * steps * BATCH
    assert t.ledger.tokens == 2 * steps * BATCH * 2
    assert len(outcome.step_seconds) == steps
    assert t.ledger.charged <= queries


@pytest.mark.parametrize(("queries", "steps"), [(2, 0), (3, 1), (20, 6)])
def test_a_first_order_step_is_three_queries_and_measures_neither_slope_nor_noise(queries, steps):
    t = trainer(queries=queries, method=fo_sgd, noise=Noise(std=1.0, repeats=4, every=1))
    outcome = t.fit()
    assert outcome.status == "done"
    assert t.ledger.queries == {"train": 3 * steps, "calibration": 0, "noise": 0}
    assert t.ledger.examples == 3 * steps * BATCH
    assert t.ledger.tokens == 3 * steps * BATCH * 2
    assert len(t.stepper.evaluator.seen) == steps
    reports = [report for report, _ in t.observer.steps]
    assert [report.slopes for report in reports] == [()] * steps
    # Gradient descent on a bowl, whose loss no noise was added to.
    assert [report.loss for report in reports] == pytest.approx([3 * 0.98 ** (2 * i) for i in range(steps)])
    assert outcome.signal == {}
    assert not any(key.startswith("zo/") for event in t.observer.events for key in event)
    assert outcome.coverage is None


def test_a_first_order_loss_that_is_not_finite_is_a_diverged_run():
    t = trainer(method=fo_sgd, lr=1e30)
    outcome = t.fit()
    assert outcome.status == "diverged"
    assert outcome.error.startswith(("the loss is inf at step", "the gradient is not finite at step"))


class Long(list):
    """A batch with as many tokens as it is told."""

    tokens = 0


@dataclass
class Uneven(Bowl):
    """A bowl whose batches read these numbers of tokens a query, one after the other."""

    lengths: list = field(default_factory=list)
    built: int = 0

    def batches(self, examples, extra_padding=0):
        rows = Long(examples)
        rows.tokens = self.lengths[self.built]
        self.built += 1
        return [rows]


@pytest.mark.parametrize(
    ("tokens", "steps"),
    # Two queries a step: 20, 40, 200 and 2 tokens.
    [(19, 0), (20, 1), (59, 1), (60, 2), (62, 2), (259, 2), (260, 3), (261, 3), (262, 4)],
)
def test_a_step_that_a_budget_of_tokens_cannot_pay_is_not_begun(tokens, steps):
    t = trainer(budget=Budget(tokens=tokens))
    t.stepper.evaluator = Uneven(t.stepper.evaluator.theta, lengths=[10, 20, 100, 1, 1000])
    t.fit()
    assert len(t.observer.steps) == steps
    assert t.ledger.queries["train"] == len(t.stepper.evaluator.seen) == 2 * steps
    assert t.ledger.tokens == [0, 20, 60, 260, 262][steps] <= tokens
    assert t.ledger.examples == 2 * steps * BATCH


def test_the_unit_of_the_budget_does_not_change_the_steps():
    by_queries, by_tokens = trainer(queries=12), trainer(budget=Budget(tokens=12 * BATCH * 2))
    by_queries.fit()
    by_tokens.fit()
    assert by_tokens.observer.steps == by_queries.observer.steps
    assert by_tokens.observer.dev() == by_queries.observer.dev()


def test_no_batch_is_built_that_a_budget_of_queries_cannot_pay():
    t = trainer(queries=5)
    t.stepper.evaluator = Uneven(t.stepper.evaluator.theta, lengths=[1] * 3)
    t.fit()
    assert t.stepper.evaluator.built == 2


@dataclass
class Clock:
    """Time that passes only where it is told to."""

    now: float = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 1), (2.99, 1), (3.0, 1), (3.01, 2), (6.0, 2), (30.0, 10)])
def test_a_budget_of_seconds_overshoots_by_one_step_at_most(seconds, steps, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("zo_runner.training.budget.time", clock)
    monkeypatch.setattr("zo_runner.training.step.time", clock)
    t = trainer(budget=Budget(seconds=seconds), noise=Noise(repeats=2, every=1), eval_every=2)
    build, loss, score = t.stepper.evaluator.batches, t.stepper.evaluator.loss, t.stepper.evaluator.score

    def slow(function, takes):
        def call(*args, **kwargs):
            clock.now += takes
            return function(*args, **kwargs)

        return call

    # One second to build a batch, one for each of the two queries of a step; dev takes for ever, noise two a step.
    t.stepper.evaluator.batches, t.stepper.evaluator.loss, t.stepper.evaluator.score = (
        slow(build, 1.0),
        slow(loss, 1.0),
        slow(score, 1000.0),
    )
    outcome = t.fit()
    assert len(t.observer.steps) == steps
    assert list(outcome.step_seconds) == [3.0] * steps
    assert t.ledger.seconds["train"] == 3.0 * steps < seconds + 3.0
    assert t.ledger.seconds["eval"] == 1000.0 * len(t.observer.dev())
    assert t.ledger.seconds["noise"] == 4.0 * steps
    assert outcome.best is not None


def test_both_queries_of_a_step_see_the_same_batch_and_each_step_the_next():
    t = trainer(queries=12)
    t.fit()
    batches = t.stepper.evaluator.seen
    assert batches[::2] == batches[1::2]
    assert batches[::2] == [[EXAMPLES[i].prefix[0] for i in t.stepper.order[step]] for step in range(6)]


def test_dev_and_noise_are_booked_and_not_charged():
    t = trainer(queries=20, noise=Noise(repeats=4, every=5))
    t.fit()
    assert t.ledger.queries == {"train": 20, "calibration": 0, "noise": 4 * 2}
    assert t.ledger.charged == 20
    assert t.ledger.examples == 20 * BATCH
    assert t.ledger.evaluated == 3 * len(t.observer.dev())
    assert all(t.ledger.seconds[phase] > 0 for phase in ("train", "noise", "eval"))


def test_measuring_noise_does_not_change_the_trajectory():
    slopes = []
    for noise in (Noise(repeats=0), Noise(repeats=4, every=2)):
        t = trainer(noise=noise)
        t.fit()
        slopes.append([report.slopes for report, _ in t.observer.steps])
    assert slopes[0] == slopes[1]


@pytest.mark.parametrize("queries", [1, 3])
def test_a_method_that_does_not_spend_what_it_declares_is_caught(queries):
    class Other(MeZO):
        def step(self, closure):
            for _ in range(queries - 2):
                closure()
            if queries > 1:
                return super().step(closure)
            return float(closure())

    with pytest.raises(RuntimeError, match=f"^Other made {queries} queries in a step and declares 2"):
        trainer(method=Other).fit()


# Dev


@pytest.mark.parametrize(
    ("queries", "eval_every", "at"),
    [
        (20, 8, [0, 8, 16, 20]),
        (20, 10, [0, 10, 20]),
        (21, 20, [0, 20]),
        (12, 5, [0, 6, 10, 12]),
        (8, 1, [0, 2, 4, 6, 8]),
        (4, 100, [0, 4]),
    ],
)
def test_dev_is_read_before_the_first_step_then_on_schedule_and_at_the_end(queries, eval_every, at):
    t = trainer(queries=queries, eval_every=eval_every)
    outcome = t.fit()
    assert t.observer.dev() == at
    assert (outcome.zero_shot.step, outcome.last.queries) == (0, at[-1])


def test_the_best_is_chosen_by_accuracy_then_loss_and_never_before_a_step():
    pairs = [(0.1, 0.99), (0.9, 0.6), (0.8, 0.7), (0.7, 0.7), (0.7, 0.7), (0.1, 0.6)]
    scores = [Score(loss, {"accuracy": accuracy}) for loss, accuracy in pairs]
    t = trainer(queries=10, eval_every=2, scores=scores)
    outcome = t.fit()
    assert outcome.zero_shot.score == scores[0]
    assert (outcome.best.step, outcome.best.score) == (3, Score(0.7, {"accuracy": 0.7}))
    assert (outcome.last.step, outcome.last.score) == (5, Score(0.1, {"accuracy": 0.6}))
    assert t.observer.improvements == [1, 2, 3]


def test_the_first_metric_selects_and_a_lower_perplexity_is_better():
    scores = [Score(3.0, {"perplexity": 20.0}), Score(2.0, {"perplexity": 7.4}), Score(2.5, {"perplexity": 12.2})]
    assert trainer(queries=4, eval_every=2, scores=scores).fit().best.score == scores[1]
    scores = [Score(1.0, {"f1": a, "exact_match": b}) for a, b in ((0.1, 0.1), (0.5, 0.2), (0.4, 0.4))]
    assert trainer(queries=4, eval_every=2, scores=scores).fit().best.score == scores[1]


# Events


def test_train_events_hold_the_mean_loss_since_the_last_one():
    t = trainer(queries=14, log_every=3)
    t.fit()
    events = [event for event in t.observer.events if "train/loss" in event]
    losses = [report.loss for report, _ in t.observer.steps]
    assert [event["step"] for event in events] == [1, 4, 7]
    assert [event["train/loss"] for event in events] == pytest.approx(
        [losses[0], sum(losses[1:4]) / 3, sum(losses[4:7]) / 3]
    )
    assert events[1]["zo/slope"] == t.observer.steps[3][0].slopes[-1]
    assert "zo/atom" not in events[0]


def test_readings_of_the_signal_reach_the_observer_and_the_outcome():
    t = trainer(queries=6, noise=Noise(std=0.01, repeats=8, every=100))
    outcome = t.fit()
    assert outcome.signal == t.observer.steps[-1][1]
    assert set(outcome.signal) == {"zo/signal", "zo/noise", "zo/fd_snr", "zo/fd_snr_db"}


# Atoms


class Atomwise(AR1ZO):
    """AR1-ZO on the bowl: its vector is the first factor of a module of rank 3, the second factor stays at 0."""

    def __init__(self, params, **options):
        (theta,) = params
        super().__init__([{"params": [theta.view(3, 1), torch.zeros(1, 3)], "name": "module"}], **options)


def test_atoms_have_the_fd_snr_of_their_own_slopes_at_every_dev_evaluation():
    t = trainer(queries=10, eval_every=4, method=Atomwise, noise=Noise(std=1e-3, repeats=8, every=100))
    noise = t.fit().signal["zo/noise"]
    events = [event for event in t.observer.events if "zo/atoms/fd_snr_db" in event]
    assert [event["queries"] for event in events] == [4, 8, 10]
    assert [event["queries"] for event in t.observer.events if "dev/loss" in event] == [0, 4, 8, 10]
    assert [event["zo/atoms/unvisited"] for event in events] == [1, 0, 0]
    slopes = [report.slopes[0] for report, _ in t.observer.steps[:2]]  # of the first two atoms
    expected = [10 * math.log10((slope**2 - noise) / noise) for slope in slopes]
    assert events[0]["zo/atoms/fd_snr_db"][:2] == pytest.approx(expected)
    assert math.isnan(events[0]["zo/atoms/fd_snr_db"][2])


@pytest.mark.parametrize(
    ("method", "repeats"),
    [(MeZO, 8), (partial(Atomwise, atoms="all"), 8), (Atomwise, 0)],
    ids=["mezo", "all_atoms", "unmeasured_noise"],
)
def test_where_atoms_or_noise_are_unknown_nothing_is_said_of_them(method, repeats):
    t = trainer(method=method, noise=Noise(std=0.01, repeats=repeats))
    assert (t.fit().coverage is None) == (method is not Atomwise)
    assert not [key for event in t.observer.events for key in event if key.startswith("zo/atoms")]


@pytest.mark.parametrize(("queries", "expected"), [
    (2, Coverage(3, 1, None)),
    (4, Coverage(3, 2, None)),
    (6, Coverage(3, 3, 6)),
    (20, Coverage(3, 3, 6)),
])  # fmt: skip
@pytest.mark.parametrize("order", ["cyclic", "shuffled"])
def test_a_pass_covers_every_atom_with_two_queries_each(order, queries, expected):
    assert trainer(queries=queries, method=partial(Atomwise, order=order)).fit().coverage == expected


def test_a_random_order_needs_more_queries_to_cover_every_atom():
    t = trainer(queries=200, method=partial(Atomwise, order="random", seed=1))
    coverage = t.fit().coverage
    atoms = [report.atom for report, _ in t.observer.steps]
    last_first_visit = max(atoms.index(k) for k in range(3))
    assert coverage == Coverage(3, 3, 2 * (last_first_visit + 1))
    assert coverage.queries > 6


def test_a_run_that_diverges_keeps_the_coverage_it_reached():
    t = trainer(queries=20, method=Atomwise)
    loss = t.stepper.evaluator.loss
    t.stepper.evaluator.loss = lambda *batches: loss(*batches) * (math.nan if t.method.steps == 2 else 1.0)
    assert t.fit().coverage == Coverage(3, 2, None)


# Divergence


def test_a_loss_that_is_no_number_ends_the_run_at_its_step():
    t = trainer(queries=20)
    loss = t.stepper.evaluator.loss
    t.stepper.evaluator.loss = lambda *batches: loss(*batches) * (math.nan if t.method.steps == 4 else 1.0)
    outcome = t.fit()
    assert outcome.status == "diverged"
    assert outcome.error == "the loss is nan at step 4 (query 9)"
    assert outcome.best.step == 4
    assert len(t.observer.steps) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_dev_loss_that_is_no_number_ends_the_run(bad):
    outcome = trainer(queries=20, scores=[Score(1.0, {"accuracy": 0.5}), Score(bad, {"accuracy": 0.5})]).fit()
    assert outcome.status == "diverged"
    assert outcome.error == f"the dev loss is {bad} at step 4 (query 8)"
    assert outcome.best is None


# BatchOrder


@pytest.mark.parametrize(("size", "batch_size"), [(10, 5), (12, 4), (7, 7), (5, 1)])
def test_every_example_is_seen_once_per_epoch(size, batch_size):
    order = BatchOrder(size, batch_size, 0)
    steps = size // batch_size
    epochs = [list(itertools.chain(*(order[epoch * steps + i] for i in range(steps)))) for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(size))] * 3
    if size > 5:
        assert len({tuple(epoch) for epoch in epochs}) == 3


def test_incomplete_batches_are_left_out_and_a_batch_has_between_one_and_all_examples():
    order = BatchOrder(10, 4, 0)
    assert len(set(order[0] + order[1])) == 8
    assert len(order[2]) == 4
    for wrong in (0, -1, 11):
        with pytest.raises(ValueError, match=rf"^Invalid batch_size: {wrong}\. Must be from 1 to the 10 training ex"):
            BatchOrder(10, wrong, 0)


def test_a_batch_is_a_function_of_seed_and_step():
    order = BatchOrder(100, 10, 3)
    forward = [order[step] for step in range(25)]
    assert [BatchOrder(100, 10, 3)[step] for step in reversed(range(25))] == forward[::-1]
    assert BatchOrder(100, 10, 4)[0] != forward[0]
    state = torch.get_rng_state()
    _ = BatchOrder(100, 10, 3)[0]
    assert torch.equal(torch.get_rng_state(), state)
