"""Short runs of every method that together use all that a run can resume: what faults are put into."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zo_runner.assets import ASSETS
from zo_runner.config.schema import HOME

# A second or two, with several checkpoints, evaluations and logged steps.
SHORT = (
    "tracker=none",
    "runtime.threads=1",
    "batch_size=2",
    "task.num_train=24",
    "task.num_dev=16",
    "task.num_test=6",
    "budget.eval_every=16",
    "budget.log_every=3",
    "runtime.checkpoint_every=7",
)
QUERIES = "budget.queries=56"
TOKENS = ("budget.queries=null", "budget.tokens=1200")

# What varies besides the method; each belongs to some methods only.
NOISE = ("noise=injected", "noise.every=4", "noise.repeats=3")
FOLD = ("runtime.fold=true",)
LR = ("method.lr=auto", "calibration.probes=4", "calibration.every=3")


@dataclass(frozen=True)
class Experiment:
    """A configuration.

    Attributes:
        name: for people.
        words: of the command line, without runtime.root.
    """

    name: str
    words: tuple[str, ...]

    def at(self, root: Path, seed: int = 0) -> list[str]:
        """The command line of a run below `root`."""
        return [*self.words, f"runtime.root={root}", f"seed={seed}"]


def methods() -> dict[str, dict[str, Any]]:
    """Every file of conf/method, by name."""
    files = sorted((HOME / "conf" / "method").glob("*.yaml"))
    return {file.stem: dict(OmegaConf.load(file).items()) for file in files}  # type: ignore[misc]


def short(method: str, *extra: str, name: str = "") -> Experiment:
    """One short run."""
    budget = () if any(word.startswith(("budget.tokens", "budget.queries")) for word in extra) else (QUERIES,)
    return Experiment(name or " ".join([method, *extra]), (f"method={method}", *SHORT, *budget, *extra))


def experiments() -> list[Experiment]:
    """Every method as it comes, and with one more thing that may go wrong in a resume, on either model."""
    found = []
    for number, (name, node) in enumerate(methods().items()):
        here, there = (f"model={ASSETS[(number + i) % len(ASSETS)]}" for i in (0, 1))
        found += [short(name, here), short(name, there, *_extra(node, number))]
        if node.get("atoms") == "one":
            found += [short(name, here, f"method.order={order}") for order in ("shuffled", "random")]
            found.append(short(name, there, *FOLD))
        elif other := _other(node):
            found.append(short(name, there, f"method.trains={other}"))
    return found


def _extra(node: dict[str, Any], number: int) -> Sequence[str]:
    if "eps" not in node:  # a first-order method has neither noise nor a rate to measure
        return TOKENS
    kinds: Sequence[Sequence[str]] = (LR, NOISE, TOKENS, (*LR, *NOISE))
    return kinds[number % len(kinds)]


def _other(node: dict[str, Any]) -> str | None:
    """What else a method can train; None for one of LoRA's pairs of factors."""
    if {"atoms", "damping"} & node.keys():
        return None
    return "adapter" if node["trains"] == "full" else "full"
