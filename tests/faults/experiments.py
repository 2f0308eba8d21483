"""Short runs of every method, which together use every feature that a resume has to restore."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zo_runner.assets import ASSETS
from zo_runner.config.schema import HOME

# A second or two, with several checkpoints, evaluations and logged steps.
SHORT = (
    *("tracker=none", "runtime.threads=1", "batch_size=2", "task.num_train=24", "task.num_dev=16", "task.num_test=6"),
    *("budget.eval_every=16", "budget.log_every=3", "runtime.checkpoint_every=7"),
)
QUERIES = "budget.queries=56"
TOKENS = ("budget.queries=null", "budget.tokens=1200")

# Options of some methods.
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


def short(method: str, *extra: str) -> Experiment:
    """One short run."""
    budget = () if any(word.startswith(("budget.tokens", "budget.queries")) for word in extra) else (QUERIES,)
    return Experiment(" ".join([method, *extra]), (f"method={method}", *SHORT, *budget, *extra))


def experiments() -> list[Experiment]:
    """Every method with its defaults and with options, on both models."""
    found = []
    for number, (name, node) in enumerate(methods().items()):
        one, other = (f"model={ASSETS[(number + i) % len(ASSETS)]}" for i in (0, 1))
        found += [short(name, one), short(name, other, *_options(node, number))]
        if node.get("atoms") == "one":
            found += [short(name, one, f"method.order={order}") for order in ("shuffled", "random")]
            found.append(short(name, other, *FOLD))
        elif not {"atoms", "damping"} & node.keys():  # these train pairs of LoRA's factors only
            found.append(short(name, other, f"method.trains={'adapter' if node['trains'] == 'full' else 'full'}"))
    return found


def _options(node: dict[str, Any], number: int) -> Sequence[str]:
    if "eps" not in node:  # a first-order method has neither noise nor a calibrated rate
        return TOKENS
    kinds: Sequence[Sequence[str]] = (LR, NOISE, TOKENS, (*LR, *NOISE))
    return kinds[number % len(kinds)]
