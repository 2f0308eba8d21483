"""What each method becomes at a limit of its arguments, named after the claim."""

import copy

import pytest
import torch

from tests.conformance.cases import CASES, METHODS, Problem, direction_of, groups_of, method_of, same_bits
from zo_runner.methods import LOZO, SubZero
from zo_runner.methods.subzero import near_square

STEPS = 12
KINDS = [METHODS["mezo"], CASES["mezo-adapter"]]


@pytest.fixture(params=KINDS, ids=["full", "adapter"])
def mezo(request):
    """MeZO on either kind of parameters."""
    return request.param


def pair(left, right, dtype=torch.float32):
    """Two methods after STEPS steps of their own from one start; a method is a node and its arguments."""
    ends = []
    for node, arguments in (left, right):
        problem = Problem(groups_of(node, dtype=dtype))
        method = method_of(node, problem, **arguments)
        reports = []
        for _ in range(STEPS):
            method.step(problem.loss)
            reports.append((method.report.loss, method.report.slopes))
        ends.append((problem, reports))
    return ends


def kin(name, like):
    """A method's node that trains what another one does."""
    return {**METHODS[name], "trains": like["trains"], "scaling": like["scaling"]}


BITS = 0.0
FROZEN, LAST = {"beta1": 0.0, "floor": 1e9, "lr": 0.05 * 1e9}, {"beta1": 0.0, "beta2": 0.0, "floor": 1e-30, "lr": 0.01}
SHORT, LONG = {"interval": 1, "rank": 3}, {"interval": 5, "rank": 3}

# A method at a limit of its arguments, the method that it is there, and the difference that rounding may make, as a
# share; 0 is bit for bit in float32, anything else in float64.
REDUCTIONS = [
    ("hizoo", {"smoothing": 0.0}, "mezo", {}, BITS),
    ("zo_sgd_momentum", {"momentum": 0.0}, "mezo", {}, BITS),
    ("lozo_m", {**SHORT, "beta": 0.0}, "lozo", SHORT, 1e-12),
    ("lozo_m", {**LONG, "beta": 0.0}, "lozo", LONG, 1e-12),
    # Without averaging, under a floor that drowns the second moment, the step is lr / floor times the estimate.
    ("zo_adam", FROZEN, "mezo", {"lr": 0.05}, 1e-7),
    # m = g and v = g^2 leave the sign of every coordinate.
    ("zo_adam", LAST, "zo_sign", {"lr": 0.01}, 1e-9),
]


@pytest.mark.parametrize(("name", "arguments", "other_name", "others", "rounding"), REDUCTIONS)
def test_it_is_the_other_method_at_this_limit(mezo, name, arguments, other_name, others, rounding):
    dtype = torch.float32 if rounding == BITS else torch.float64
    (one, seen), (other, expected) = pair((kin(name, mezo), arguments), (kin(other_name, mezo), others), dtype)
    if rounding == BITS:
        assert same_bits(one.parameters, other.parameters)
        assert seen == expected
    assert torch.allclose(one.flat(), other.flat(), rtol=rounding, atol=rounding)


@pytest.mark.parametrize(("name", "arguments"), [("hizoo", {"smoothing": 0.1}), ("zo_sgd_momentum", {"momentum": 0.1})])
def test_away_from_the_limit_it_is_not(mezo, name, arguments):
    (one, _), (other, _) = pair((kin(name, mezo), arguments), (mezo, {}))
    assert not same_bits(one.parameters, other.parameters)


def test_mezo_on_an_adapter_is_lora_zo_bit_for_bit():
    (one, _), (other, _) = pair((CASES["mezo-adapter"], {}), (METHODS["lora_zo"], {}))
    assert same_bits(one.parameters, other.parameters)


def test_fzoo_step_does_not_depend_on_the_unit_of_the_loss(mezo):
    ends = []
    for unit in (1.0, 2.0**20):
        problem = Problem(groups_of(mezo))
        method = method_of(kin("fzoo", mezo), problem)
        for _ in range(STEPS):
            method.step(lambda problem=problem, unit=unit: unit * problem.loss())
        ends.append(problem.parameters)
    assert same_bits(*ends)


def test_fzoo_on_equal_losses_stays(mezo):
    problem = Problem(groups_of(mezo))
    before = problem.values()
    losses = iter([0.5] + 8 * [0.7])
    method_of(kin("fzoo", mezo), problem).step(lambda: torch.tensor(next(losses)))
    assert same_bits(problem.parameters, before)


# The first two moments of MeZO's direction are 0 and the identity.

DRAWS = 4000


def moments(method, view):
    """Mean and covariance of u over the steps, as flat vectors."""
    draws = torch.stack([next(iter(method.direction(step))).component.flatten().double() for step in range(DRAWS)])
    assert draws.shape[1] == view.numel()
    return draws.mean(dim=0), draws.T @ draws / DRAWS


def assert_mezos_moments(method, view, kurtosis):
    """Within six standard errors. The variance of u_i u_j is at most E u^4 - 1, and E u^4 is `kurtosis` at most."""
    mean, covariance = moments(method, view)
    error = ((kurtosis - 1) / DRAWS) ** 0.5
    assert mean.abs().max() <= 6 / DRAWS**0.5
    assert (covariance - torch.eye(len(mean))).abs().max() <= 6 * error
    assert 6 * error < 0.5, "too few draws to tell the identity from another covariance"


@pytest.mark.parametrize("rank", [2, 8])
def test_lozo_with_interval_1_has_mezos_first_two_moments_at_full_rank_and_below(rank):
    """E (U V')_ij^4 = 3 r^2 + 6 r, so u = U V' / sqrt(r) has E u^4 = 3 + 6 / r."""
    view = torch.zeros(3, 4)
    assert_mezos_moments(LOZO([view], lr=0.1, eps=0.1, rank=rank, interval=1), view, 3 + 6 / rank)


def test_lozo_with_a_subspace_that_stays_has_not():
    view = torch.zeros(3, 4)
    with pytest.raises(AssertionError):
        assert_mezos_moments(LOZO([view], lr=0.1, eps=0.1, rank=2, interval=DRAWS), view, 6)


def test_subzero_with_full_rank_subspaces_has_mezos_first_two_moments_even_where_they_stay():
    """Between orthogonal matrices a Gaussian is a Gaussian."""
    view = torch.zeros(3, 3)
    assert_mezos_moments(SubZero([view], lr=0.1, eps=0.1, rank=3, interval=DRAWS), view, 3)


@pytest.mark.parametrize("shape", [(3, 4), (4, 2)])
def test_subzero_with_interval_1_has_mezos_first_two_moments_at_any_rank(shape):
    """Rows of uniform bases have E |U_i|^4 = r (r + 2) / (m (m + 2)), which gives E u^4."""
    view, r = torch.zeros(shape), 2
    m, n = shape
    kurtosis = 3 * m * n * (r + 2) ** 2 / (r**2 * (m + 2) * (n + 2))
    assert_mezos_moments(SubZero([view], lr=0.1, eps=0.1, rank=r, interval=1), view, kurtosis)


def test_subzero_reads_a_lora_factor_as_the_nearest_square():
    assert [near_square(n) for n in (36, 48, 8 * 64, 7, 1)] == [(6, 6), (6, 8), (16, 32), (1, 7), (1, 1)]
    node = kin("subzero", KINDS[1])
    problem = Problem(groups_of(node, widths=(8, 8), rank=2))
    method = method_of(node, problem, rank=2)
    for part in method.direction(0):
        read = part.component.reshape(4, 4)
        assert torch.linalg.matrix_rank(read) == 2
        assert min(part.component.shape) == 2


def test_subzero_keeps_its_subspace_for_interval_steps_and_no_longer():
    view = torch.zeros(6, 6)
    method = SubZero([view], lr=0.1, eps=0.1, rank=2, interval=5)
    stacked = [torch.cat([next(iter(method.direction(s))).component for s in steps]) for steps in (range(5), range(6))]
    assert [int(torch.linalg.matrix_rank(rows)) for rows in stacked] == [2, 4]


def test_a_subspace_is_that_of_the_seed_that_was_loaded():
    view = torch.zeros(6, 6)
    one, other = (SubZero([view.clone()], lr=0.1, eps=0.1, seed=seed, rank=2) for seed in (1, 2))
    first = direction_of(one, 0)
    assert not torch.equal(direction_of(other, 0), first)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(direction_of(other, 0), first)


def test_hizoo_moves_less_where_the_loss_is_steeper():
    """On a bowl with curvatures 1 and 100, H grows with the curvature and the direction shrinks by its square root."""
    x, curvatures = torch.tensor([[1.0, 1.0]]), torch.tensor([1.0, 100.0])
    method = method_of(METHODS["hizoo"], _bowl(x), smoothing=1e-3, lr=0.0)
    for _ in range(400):
        method.step(lambda: (curvatures * x.double() ** 2).sum() / 2)
    flat, steep = method.state[x]["hessian"].flatten().tolist()
    assert steep > 2 * flat


class _bowl:
    def __init__(self, x):
        self.groups = [{"params": [x], "names": ["x"]}]


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        *(("lozo", "rank", value) for value in (0, 1.5, True)),
        *(("subzero", "interval", value) for value in (0, "a", None)),
        *(("lozo_m", "beta", value) for value in (-0.1, 1.0)),
        *(("hizoo", "smoothing", value) for value in (-1e-9, 1.0)),
        *(("zo_sgd_momentum", "momentum", value) for value in (-0.1, 1.0)),
        *(("zo_adam", "floor", value) for value in (0.0, "a")),
        *(("zo_adam", beta, value) for beta in ("beta1", "beta2") for value in (-0.1, 1.0)),
        ("fzoo", "num_signs", 1),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(name, argument, value):
    with pytest.raises(ValueError, match=rf"^Invalid {argument}: .*\. Must be an? .*[<>]=? [0-9].*\.$"):
        method_of(METHODS[name], Problem(groups_of(METHODS[name])), **{argument: value})


def test_fzoo_takes_the_same_steps_whether_it_keeps_its_directions_or_draws_them_again(monkeypatch):
    ends = []
    for most in (2**28, 0):
        monkeypatch.setattr("zo_runner.methods.fzoo.KEPT_NUMBERS", most)
        problem = Problem(groups_of(METHODS["fzoo"]))
        method = method_of(METHODS["fzoo"], problem)
        for _ in range(5):
            method.step(problem.loss)
        ends.append(problem.values())
    assert same_bits(*ends)
