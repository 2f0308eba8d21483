"""Methods that query one atom leave all others alone, and reach every atom."""

import pytest
import torch

from tests.conformance.cases import METHODS, RANK, Problem, groups_of, method_of
from zo_runner.methods.atoms import ORDERS

ONE_ATOM = {stem: node for stem, node in METHODS.items() if node.get("atoms") == "one"}


@pytest.fixture(params=ONE_ATOM.values(), ids=ONE_ATOM.keys())
def node(request):
    return request.param


def moved_atoms(method, problem):
    """Per module, the atoms that one step changes, in A and in B."""
    before = problem.values()
    method.step(problem.loss)
    changed = [after != start for after, start in zip(problem.parameters, before, strict=True)]
    rows = [set(torch.where(c.any(dim=1))[0].tolist()) for c in changed[0::2]]
    columns = [set(torch.where(c.any(dim=0))[0].tolist()) for c in changed[1::2]]
    assert all(c[:, list(k)].all() for c, k in zip(changed[1::2], columns, strict=True))
    return rows, columns


@pytest.mark.parametrize("offsets", ["shared", "per_module"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_step_moves_one_matched_atom_of_each_module_and_no_other(node, problem, order, offsets):
    method = method_of(node, problem, order=order, offsets=offsets)
    for step in range(3 * RANK):
        k = method.atom(step)
        shift = 1 if offsets == "per_module" else 0
        expected = [{(k + shift * module) % RANK} for module in range(len(problem.groups))]
        assert moved_atoms(method, problem) == (expected, expected)
        assert method.report.atom == k


@pytest.mark.parametrize("order", ["cyclic", "shuffled"])
def test_a_pass_of_r_steps_visits_every_atom_once(node, problem, order):
    method = method_of(node, problem, order=order)
    passes = [[method.atom(RANK * p + i) for i in range(RANK)] for p in range(20)]
    assert all(sorted(visited) == list(range(RANK)) for visited in passes)
    assert (len(set(map(tuple, passes))) > 1) == (order == "shuffled")


def test_cyclic_order_is_0_to_r_minus_1(node, problem):
    method = method_of(node, problem, order="cyclic")
    assert [method.atom(step) for step in range(2 * RANK)] == 2 * list(range(RANK))


def test_the_default_is_the_cyclic_order_shared_by_all_modules(node):
    assert (node["order"], node["offsets"]) == ("cyclic", "shared")


def test_the_number_of_perturbed_numbers_does_not_grow_with_the_rank(node):
    def perturbed(rank):
        method = method_of(node, Problem(groups_of(node, rank=rank)))
        return sum(part.component.numel() for part in method.direction(0))

    assert perturbed(1) == perturbed(4) == perturbed(64)


def test_at_rank_1_one_atom_is_all_atoms(node):
    problems = [Problem(groups_of(node, rank=1)) for _ in range(2)]
    for atoms, problem in zip(("one", "all"), problems, strict=True):
        method = method_of(node, problem, atoms=atoms)
        for _ in range(5):
            method.step(problem.loss)
    one, every = problems
    assert all(map(torch.equal, one.parameters, every.parameters))


@pytest.mark.parametrize(
    ("name", "value"), [("atoms", "two"), ("order", "backwards"), ("offsets", "none"), ("order", None)]
)
def test_an_unknown_choice_is_refused_by_name(node, problem, name, value):
    constructor = type(method_of(node, problem))
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*\. Must be one of .*\.$"):
        constructor(problem.groups, lr=0.1, eps=0.1, **{name: value})


def test_groups_that_are_no_lora_pairs_are_refused(node, problem):
    constructor = type(method_of(node, problem))
    unequal = [*groups_of(node, rank=2)[1][:1], *groups_of(node, rank=3)[1][1:]]
    dense = groups_of({"trains": "full"})[1]
    swapped = [{**group, "params": group["params"][::-1]} for group in problem.groups[:1]]
    for groups, reason in ((unequal, "parameter groups"), (dense, "parameter group"), (swapped, "parameter group")):
        with pytest.raises(ValueError, match=rf"^Invalid {reason}: .*\. Must be one .*\.$"):
            constructor(groups, lr=0.1, eps=0.1)
