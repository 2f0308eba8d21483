"""SIGKILL at random moments and at every write, then the same command again: the run must equal an undisturbed twin.

A run is killed, resumed by the same command, killed again, and at last left to finish. Its journal, metrics, result and
tensors are then compared with those of its twin. Random kills go over all experiments. Systematic ones go over every
call that writes, renames or removes a file of the run; a write leaves half of its text behind.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.experiments import LR, NOISE, Experiment, experiments, short
from tests.faults.forked import SharedText
from tests.faults.report import Part
from tests.faults.sites import killing, watch
from tests.faults.trials import Trial, trial
from tests.faults.twins import leftovers
from zo_runner.jobs import holdout
from zo_runner.models.evaluator import Evaluator
from zo_runner.records.journal import Journal

# Random kills of one run, at most.
KILLS_PER_RUN = 6

# An adapter by atoms, every parameter, and a state beside the parameters.
SYSTEMATIC = (
    short("ar1zo", "budget.queries=16", "budget.eval_every=8", *NOISE),
    short("mezo", "budget.queries=16", "budget.eval_every=8", "model=pocket_qwen3"),
    short("lozo_m", "budget.queries=24", "budget.eval_every=8", *LR),
)


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """The kinds of kills."""
    return [
        partial(random_kills, 6 if quick else 200),
        partial(kills_at_sites, 2 if quick else 1000),
        partial(kills_of_a_process, 1 if quick else 3),
    ]


def random_kills(kills: int) -> list[Part]:
    """Kill at moments drawn evenly from the length of a command, and from that of its run, in turn."""
    part, draw = Part("kills at random moments"), random.Random(0)
    seed = runs = 0
    while part.cases < kills:
        for experiment in experiments():
            if part.cases >= kills:
                break
            with trial(experiment, seed) as tried:
                for turn in range(min(KILLS_PER_RUN, kills - part.cases)):
                    after = draw.uniform(0, 1) * tried.ended.seconds
                    moment = _kill(tried, after, once_begun=turn % 2 == 1)
                    if moment is None:
                        break
                    part.case([], f"killed {moment}")
                part.fail(tried.resume())
                runs += 1
                print(f"{part.cases} kills of {runs} runs", file=sys.stderr, flush=True)
        seed += 1
    part.counts["runs"] = runs
    return [part]


def _kill(tried: Trial, after: float, *, once_begun: bool) -> str | None:
    """Kill a command after some seconds; the phase it was in, None if it had ended.

    Args:
        tried: the trial.
        after: seconds; half of them where they count from the beginning of the run.
        once_begun: count from the moment when the run begins or goes on.

    Raises:
        RuntimeError: the command failed.
    """
    phase = SharedText()
    command = tried.start(lambda: _tell_phases(phase))
    seen: list[float] = []

    def due() -> bool:
        if phase.text and not seen:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + after / 2

    ended = command.wait(send=signal.SIGKILL, after=0 if once_begun else after, when=due if once_begun else None)
    if ended.code > 0:
        raise RuntimeError(str(ended))
    if not ended.killed:
        return None
    left = [name for run in tried.root.glob("*/*/*/*") for name in leftovers(run)]
    if not left:
        return phase.text or "before the first step, or the first after a resume"
    name = left[0].split(".")[1]
    return f"while {'checkpoint' if name.startswith('tmp') else name} was written"


def _tell_phases(phase: SharedText) -> None:
    """Make this process keep `phase` up to date."""

    def tell(owner: Any, name: str, during: str, after: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def telling(*args: Any, **kwargs: Any) -> Any:
            phase.text = during
            try:
                return plain(*args, **kwargs)
            finally:
                phase.text = after

        setattr(owner, name, telling)

    tell(Journal, "append", "while it trained", "while it trained")
    tell(Evaluator, "score", "while it evaluated", "while it trained")
    tell(holdout, "keep", "after training", "after training")


def kills_at_sites(points: int, chosen: tuple[Experiment, ...] = SYSTEMATIC) -> list[Part]:
    """Kill at the calls by which a run changes its files: at most `points` of each run, spread evenly."""
    part = Part("kills at every write, rename and removal")
    for experiment in chosen:
        with trial_with_sites(experiment) as (tried, sites):
            for at in spread(len(sites), points):
                tried.clear()
                ended = tried.run(lambda at=at: watch(tried.root, killing(lambda number, *_: number == at)))
                found = tried.resume() if ended.killed else [f"{experiment.name}: not reached, {ended}"]
                part.case([f"site {at} of {len(sites)}: {failure}" for failure in found])
            part.counts[experiment.name] = len(sites)
    return [part]


@contextmanager
def trial_with_sites(experiment: Experiment) -> Iterator[tuple[Trial, list[str]]]:
    """A trial, and the kind and file name of every site of its twin, in order."""
    with tempfile.NamedTemporaryFile() as notes:

        def note(number: int, kind: str, file: str) -> None:
            os.write(notes.fileno(), f"{kind} {Path(file).name}\n".encode())

        with trial(experiment, prepare_twin=lambda root: watch(root, note)) as tried:
            yield tried, Path(notes.name).read_text(encoding="utf-8").splitlines()


def spread(count: int, points: int) -> Iterator[int]:
    """At most `points` of 1..count, evenly."""
    if points >= count:
        yield from range(1, count + 1)
    else:
        yield from sorted({1 + round(i * (count - 1) / max(points - 1, 1)) for i in range(points)})


def kills_of_a_process(kills: int) -> list[Part]:
    """Kill a real zo-run process."""
    part, draw = Part("kills of a real zo-run process"), random.Random(0)
    with trial(short("ar1zo", "budget.queries=400", *NOISE)) as tried:
        command = [sys.executable, "-m", "zo_runner.cli", *tried.words]
        start = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        length = time.monotonic() - start
        tried.clear()
        for _ in range(kills):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=draw.uniform(0.3, 0.7) * length)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                part.cases += 1
        part.fail(tried.resume())
    return [part]
