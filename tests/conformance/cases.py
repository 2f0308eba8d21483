"""The methods under test, found in conf/method/, and small plain-torch problems of both kinds that methods train.

A problem is a chain of three linear maps with tanh between them, read by a logistic loss. With trains=full the maps'
weights are the parameters; with trains=adapter the weights are frozen and each map has a LoRA pair, dW = s B A.
"""

import itertools
import math
import os
from pathlib import Path

import torch
from omegaconf import OmegaConf

import zo_runner.methods
from zo_runner.config.instantiate import build
from zo_runner.methods.atoms import lora_alpha
from zo_runner.methods.random import normal

# A folder with a method that stands beside those of the package: test_adding_a_method.py makes one.
ADDED = Path(os.environ["ADDED_METHOD"]) if "ADDED_METHOD" in os.environ else None
if ADDED is not None:
    zo_runner.methods.__path__.append(str(ADDED / "methods"))

FOLDERS = [Path(__file__).parents[2] / "conf" / "method", *([] if ADDED is None else [ADDED / "conf"])]
METHODS = {
    file.stem: OmegaConf.to_container(OmegaConf.load(file))
    for folder in FOLDERS
    for file in sorted(folder.glob("*.yaml"))
}

# The same with subspaces that change within a few steps, MeZO's other distribution, and every method of full parameters
# on an adapter too.
CASES = {stem: {**node, "interval": 7} if "interval" in node else node for stem, node in METHODS.items()}
CASES["mezo-rademacher"] = {**METHODS["mezo"], "distribution": "rademacher"}
CASES |= {f"{stem}-adapter": {**node, "trains": "adapter"} for stem, node in CASES.items() if node["trains"] == "full"}

ZEROTH_ORDER, FIRST_ORDER = (
    {stem: node for stem, node in CASES.items() if build(node).func.needs_grad == first} for first in (False, True)
)

RANK = 4
ALPHA = 3.0
WIDTHS = (5, 6, 7, 3)  # the modules map 5 to 6, 6 to 7 and 7 to 3 features
EXAMPLES = 8


def groups_of(node, widths=WIDTHS, rank=RANK, dtype=torch.float32):
    """Parameter groups, as `lora.lora_groups` or `lora.dense_groups` would make them, with weights and all."""

    def parameter(tensor):
        return torch.nn.Parameter(tensor, requires_grad=False)

    shapes = {f"layer{i}": shape for i, shape in enumerate(itertools.pairwise(widths))}
    weights = {m: parameter(normal((o, i), 0, "W", m).to(dtype) / math.sqrt(i)) for m, (i, o) in shapes.items()}
    if node["trains"] == "full":
        return weights, [{"params": list(weights.values()), "names": list(weights)}]
    s = lora_alpha(node["scaling"], ALPHA, rank) / (math.sqrt(rank) if node["scaling"] == "rslora" else rank)
    groups = [
        {
            "params": [
                parameter(normal((rank, i), 0, "A", m).to(dtype) / 3),
                parameter(normal((o, rank), 0, "B", m).to(dtype) / 3),
            ],
            "name": m,
            "scaling": s,
            "weight": weights[m],
        }
        for m, (i, o) in shapes.items()
    ]
    return weights, groups


class Problem:
    """The loss of the chain as a function of its parameters. Losses are computed in float64, whatever theirs is."""

    def __init__(self, weights_and_groups):
        self.weights, self.groups = weights_and_groups
        self.parameters = [p for group in self.groups for p in group["params"]]
        first, last = next(iter(self.weights.values())), list(self.weights.values())[-1]
        self.inputs = normal((EXAMPLES, first.shape[1]), 0, "inputs").double()
        self.signs = normal((EXAMPLES, last.shape[0]), 0, "signs").double().sign()

    def loss(self):
        weights = {m: w.double() for m, w in self.weights.items()}
        for group in self.groups:
            if "name" in group:
                a_RI, b_OR = (p.double() for p in group["params"])
                weights[group["name"]] = weights[group["name"]] + group["scaling"] * b_OR @ a_RI
        *inner, last = weights.values()
        hidden = self.inputs
        for w_OI in inner:
            hidden = torch.tanh(hidden @ w_OI.T)
        return torch.nn.functional.softplus(-self.signs * (hidden @ last.T)).mean()

    def gradient(self):
        """d loss / d parameter, one tensor per parameter, by autograd."""
        for p in self.parameters:
            p.requires_grad_(True)
        gradient = torch.autograd.grad(self.loss(), self.parameters)
        for p in self.parameters:
            p.requires_grad_(False)
        return gradient

    def values(self):
        """Copies of the parameters."""
        return [p.clone() for p in self.parameters]

    def set(self, values):
        """Give the parameters values again."""
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)

    def flat(self):
        """All parameters in one float64 vector."""
        return flatten(self.parameters)


def method_of(node, problem, *, lr=0.05, eps=1e-3, seed=0, **arguments):
    """The method of a YAML file on a problem's parameters. One that is of first order has no eps and no seed."""
    known = {"lr": lr, **arguments}
    if not build(node).func.needs_grad:
        known |= {"eps": eps, "seed": seed}
    return build({**node, **known})([dict(group) for group in problem.groups])


def calls_of(method):
    """How often a step calls its closure: once per query, but a gradient's queries are one call."""
    return 1 if method.needs_grad else method.queries_per_step


def flatten(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])


def direction_of(method, step):
    """u of a step over all parameters, zero where nothing is queried, as one float64 vector."""
    parameters = [p for group in method.param_groups for p in group["params"]]
    saved = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.zero_()
        for part in method.direction(step):
            part.view.add_(part.component)
        u = flatten(parameters)
        for p, value in zip(parameters, saved, strict=True):
            p.copy_(value)
    return u


def same_bits(left, right):
    """Whether two lists of tensors hold the same bits; unlike ==, this tells -0.0 from 0.0 and equates NaNs."""
    return all(torch.equal(x.view(torch.int32), y.view(torch.int32)) for x, y in zip(left, right, strict=True))
