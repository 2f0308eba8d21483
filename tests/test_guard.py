"""The guard: what ends a run as diverged, at which step exactly, and what does not."""

import json
import math
from dataclasses import dataclass, field

import pytest
import torch

from tests.cli.helpers import SMALL, configure, read_json, read_jsonl, the_run, zo_run
from tests.test_train import Bowl, fo_sgd, trainer
from zo_runner.config import validation
from zo_runner.config.ineffective_keys import cautions
from zo_runner.errors import Diverged, UserError
from zo_runner.methods import AR1ZO, MeZO
from zo_runner.methods.base import StepReport
from zo_runner.models.evaluator import Evaluator
from zo_runner.training.divergence import FEW_SLOPES, Guard


def judged(guard, slopes, losses=None):
    """How many steps with these slopes a guard lets pass."""
    for step, slope in enumerate(slopes):
        loss = float(step) if losses is None else losses[step]
        try:
            guard.after(StepReport(step, loss, slope if isinstance(slope, tuple) else (slope,), 0.1))
        except Diverged:
            return step
    return len(slopes)


@dataclass
class Scripted(Bowl):
    """A loss that has these slopes along whatever is queried, in turn; the parameters do not move it."""

    slopes: list = field(default_factory=list)
    eps: float = 1e-3

    def loss(self, *batches):
        step, sign = divmod(len(self.seen), 2)
        super().loss(*batches)
        return torch.tensor(1.0 + step + (1 - 2 * sign) * self.eps * self.slopes[step], dtype=torch.float64)


def scripted(slopes, **settings):
    t = trainer(queries=2 * len(slopes), eval_every=10_000, lr=1e-6)
    t.stepper.evaluator = Scripted(t.stepper.evaluator.theta, slopes=slopes)
    t.guard = Guard(**settings)
    return t


# Slopes


def test_an_exploding_slope_ends_the_run_after_its_step_is_recorded():
    t = scripted([1.0] * FEW_SLOPES + [2000.0, 1.0], slope=1000.0)
    outcome = t.fit()
    assert outcome.status == "diverged"
    assert outcome.error == (
        "the slope 2000 is more than guard.slope=1000 times 1, the root mean square of those before it, at step 101 "
        "(query 202)"
    )
    assert len(t.observer.steps) == FEW_SLOPES + 1
    assert t.observer.steps[-1][0].slopes == pytest.approx((2000.0,))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("before", "times", "stopped"), [
    (FEW_SLOPES, 1000.0, False),
    (FEW_SLOPES, math.nextafter(1000.0, math.inf), True),
    (FEW_SLOPES - 1, 1e6, False),
])  # fmt: skip
def test_a_slope_may_be_exactly_so_many_times_as_large_and_is_not_judged_by_a_few(before, times, stopped, sign):
    assert judged(Guard(slope=1000.0), [0.5] * before + [sign * 0.5 * times]) == before + (not stopped)


def test_every_slope_of_a_step_counts_and_is_judged():
    calm, wild = (1.0, 1.0, -1.0, 1.0), (1.0, 1.0, -2000.0, 1.0)
    assert judged(Guard(slope=1000.0), [calm] * 24 + [wild] + [calm]) == 26  # 96 slopes before
    assert judged(Guard(slope=1000.0), [calm] * 25 + [wild] + [calm]) == 25


def test_the_first_slope_after_none_at_all_explodes_nothing():
    assert judged(Guard(slope=1000.0), [0.0] * 500 + [1.0, 0.0] * 10) == 520


@dataclass
class Solved(Bowl):
    """Two classes that one weight tells apart. Of 200 batches one holds an example that is labelled wrongly."""

    def loss(self, *batches):
        super().loss(*batches)
        wrong = (len(self.seen) - 1) // 2 % 200 == 150
        return torch.nn.functional.softplus(self.theta.double().sum() * (40 if wrong else -40))


def test_a_run_that_solves_its_task_is_not_stopped_by_a_hard_batch():
    t = trainer(queries=1200, eval_every=10_000, lr=2e-2)
    t.stepper.evaluator = Solved(t.stepper.evaluator.theta.mul_(0.01))
    t.guard = Guard(slope=1000.0, still=200)
    assert t.fit().status == "done"
    easy = [abs(report.slopes[0]) for report, _ in t.observer.steps[50:150]]
    hard = abs(t.observer.steps[150][0].slopes[0])
    assert hard > 1000 * math.sqrt(sum(slope * slope for slope in easy) / len(easy))  # which a window would stop


# Losses


@pytest.mark.parametrize("value", [0.0, 0.6931471805599453])
@pytest.mark.parametrize(("steps", "status"), [(4, "done"), (5, "diverged")])
def test_a_loss_that_stays_the_same_number_ends_the_run(value, steps, status):
    t = trainer(queries=2 * steps, eval_every=10_000)
    t.stepper.evaluator.loss = lambda *batches: torch.tensor(value, dtype=torch.float64)
    t.guard = Guard(still=5)
    outcome = t.fit()
    assert outcome.status == status
    if status == "diverged":
        assert outcome.error == f"the loss was exactly {value} in guard.still=5 steps on end, at step 5 (query 10)"


def test_a_first_order_loss_that_stays_the_same_ends_the_run():
    t = trainer(queries=60, eval_every=10_000, method=fo_sgd)
    t.stepper.evaluator.loss = lambda *batches: (0.0 * t.stepper.evaluator.theta).sum()
    t.guard = Guard(slope=1000.0, still=5)
    assert t.fit().error == "the loss was exactly 0.0 in guard.still=5 steps on end, at step 5 (query 15)"


def test_slopes_of_zero_alone_do_not_end_a_run():
    assert scripted([0.0] * 50, slope=1000.0, still=5).fit().status == "done"


def test_a_loss_that_changes_once_begins_to_count_anew():
    losses = [1.0] * 4 + [2.0] + [1.0] * 4 + [0.0] * 4
    assert judged(Guard(still=5), [1.0] * 13, losses) == 13
    assert judged(Guard(still=5), [1.0] * 14, [*losses, 0.0]) == 13


# Parameters


@dataclass
class Half(Bowl):
    """A float16 vector of which the loss reads the first number alone."""

    def loss(self, *batches):
        super().loss(*batches)
        return self.theta[0].float()


def test_a_parameter_past_the_range_of_its_dtype_ends_the_run_though_no_loss_shows_it():
    t = trainer(queries=200, eval_every=40)
    theta = torch.tensor([0.0, 65504.0, -65504.0, 1.0], dtype=torch.float16)
    t.stepper.evaluator = Half(theta)
    t.stepper.method = MeZO([{"params": [theta], "names": ["body.weight"]}], lr=100.0, eps=1.0)
    outcome = t.fit()
    assert outcome.status == "diverged"
    reason, place = outcome.error.split(" at step ")
    assert reason.split(" of ", 1)[1] == "4 numbers of the parameter body.weight are not finite in float16"
    assert place.endswith("(query 40)")  # the first reading of dev after it
    assert math.isfinite(t.observer.steps[-1][0].loss)
    assert t.observer.improvements == []  # nothing of it was kept as the best
    assert not torch.isfinite(theta).all()


def test_the_parameter_of_an_adapter_is_named_by_its_module_and_factor():
    pair = [torch.ones(2, 3), torch.full((4, 2), math.nan)]
    method = AR1ZO([{"name": "layers.0.q_proj", "params": pair}], lr=0.1, eps=0.1)
    with pytest.raises(Diverged, match=r"^8 of 8 numbers of the parameter layers\.0\.q_proj\.B are not finite in floa"):
        Guard().parameters(method)


# State


@pytest.mark.parametrize(("slopes", "losses"), [
    ([1.0] * FEW_SLOPES + [999.0, 1.0, 60_000.0], None),
    ([1.0] * 12, [1.0] * 3 + [0.1] * 9),
])  # fmt: skip
def test_a_guard_that_goes_on_decides_as_if_it_had_not_stopped(slopes, losses):
    whole = Guard(slope=100.0, still=7)
    ends = judged(whole, slopes, losses)
    assert 0 < ends < len(slopes)
    for cut in range(ends):
        first, second = Guard(slope=100.0, still=7), Guard(slope=100.0, still=7)
        assert judged(first, slopes[:cut], losses) == cut
        second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
        rest = [float(step) for step in range(len(slopes))] if losses is None else losses
        assert judged(second, slopes[cut:], rest[cut:]) == ends - cut
        assert second.state() == whole.state()


# Configuration


@pytest.mark.parametrize("key", ["slope", "still"])
def test_null_switches_a_rule_off(key):
    slopes = [1.0] * FEW_SLOPES + [1e9]
    losses = [1.0] * len(slopes) if key == "still" else None
    settings = {"slope": 1000.0, "still": 50} if key == "still" else {"slope": 1000.0}
    assert judged(Guard(**settings), slopes, losses) < len(slopes)
    assert judged(Guard(), slopes, losses) == len(slopes)


@pytest.mark.parametrize(("key", "value", "allowed"), [
    *(("slope", value, "a finite number > 1, or null") for value in (1.0, 0.0, -5.0, math.inf, math.nan)),
    *(("still", value, "an integer >= 2, or null") for value in (1, 0, -1)),
])  # fmt: skip
def test_thresholds_have_a_range(key, value, allowed):
    cfg = configure()
    cfg.guard[key] = value
    with pytest.raises(UserError, match=rf"^Invalid guard\.{key}: {value}\. Must be {allowed}\.$"):
        validation.check(cfg)


def test_a_slope_guards_no_method_without_slopes():
    (note,) = cautions(configure("method=fo_sgd", "guard.slope=50"), {"guard.slope"})
    assert note == "guard.slope has no effect: method=fo_sgd differentiates the loss, and queries none"


# A whole run


def test_a_run_that_the_guard_ends_keeps_everything_up_to_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "losses", lambda self, batches, points=1: torch.zeros(points))
    words = (*SMALL, "budget.queries=40", "budget.eval_every=4", "guard.still=6", f"runtime.root={tmp_path}")
    ended = zo_run(*words)
    assert (ended.code, ended.err) == (0, "")
    run = the_run(tmp_path)
    result = read_json(run / "result.json")
    assert result["status"] == "diverged"
    assert result["error"] == "the loss was exactly 0.0 in guard.still=6 steps on end, at step 6 (query 12)"
    assert result["identity"]["guard"]["still"] == 6
    assert len(read_jsonl(run / "journal.jsonl")) == 6
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "best" / "adapter_model.safetensors").is_file()
    assert result["metrics"]["dev"]["best"]["step"] == 2
    assert zo_run(*words).out == ended.out.replace(": diverged;", ": cached, diverged;")
