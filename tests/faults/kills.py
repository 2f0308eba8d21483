"""SIGKILL at random moments and at every write, then the same command again: nothing may differ from a run left alone.

    python -m tests.faults.kills [--kills 200] [--points 1000] [--commands 3] [--seed 0] [--json FILE]

A run is killed, begun again by the same command, killed again, and at last let finish. Its journal, metrics, result and
tensors are then compared with those of a twin that nobody disturbed. Random kills go over all of experiments.py.
The systematic ones go over every call that writes, renames or removes a file of the run (a write leaves half of its
text behind); --points N takes at most N of them in each of three runs, spread evenly. --commands counts kills of a
real `zo-run` process. Each may be 0.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.experiments import LR, NOISE, Experiment, experiments, short
from tests.faults.report import Part, write
from tests.faults.sites import killing, watch
from tests.faults.sittings import Ended, Shared, Sitting, sit
from tests.faults.twins import differences, leftovers
from zo_runner.jobs import holdout
from zo_runner.models.evaluator import Evaluator
from zo_runner.records.journal import Journal
from zo_runner.records.run_directory import find_runs

# Kills of one run, before it is let finish.
_MOST = 6

# What the crash points are put into: an adapter by atoms, every parameter, and a state beside the parameters.
CRASHED = (
    short("ar1zo", "budget.queries=16", "budget.eval_every=8", *NOISE),
    short("mezo", "budget.queries=16", "budget.eval_every=8", "model=pocket_qwen3"),
    short("lozo_m", "budget.queries=24", "budget.eval_every=8", *LR),
)


def only_run(root: Path) -> Path:
    """The one finished run below `root`."""
    (run,) = find_runs(root)
    return run


def resumed(experiment: Experiment, folder: Path, twin: Path, seed: int = 0) -> list[str]:
    """Let a disturbed run finish; how it differs from its twin.

    Args:
        experiment: of both.
        folder: a folder for this experiment alone; the disturbed run is below `folder/run`.
        twin: root of the undisturbed run.
        seed: of both.
    """
    ended = sit(experiment.at(folder / "run", seed), folder / "log.txt")
    if ended.code:
        return [f"{experiment.name}: the resume exits {ended.code}: {ended.said[-800:]}"]
    return [f"{experiment.name}: {what}" for what in differences(only_run(folder / "run"), only_run(twin))]


def undisturbed(experiment: Experiment, folder: Path, seed: int = 0) -> Ended:
    """The twin, below `folder/twin`.

    Raises:
        RuntimeError: it fails.
    """
    ended = sit(experiment.at(folder / "twin", seed), folder / "twin.txt")
    if ended.code:
        raise RuntimeError(f"{experiment.name} exits {ended.code} undisturbed:\n{ended.said}")
    return ended


def random_kills(kills: int, seed: int) -> Part:
    """At moments drawn evenly from the length of a command, and from that of its run, in turn."""
    part, draw = Part("kills at random moments"), random.Random(seed)
    round_seed = runs = 0
    while part.cases < kills:
        for experiment in experiments():
            if part.cases >= kills:
                break
            with tempfile.TemporaryDirectory(prefix="zo-kills-") as name:
                folder = Path(name)
                length = undisturbed(experiment, folder, round_seed).seconds
                for turn in range(min(_MOST, kills - part.cases)):
                    share = draw.uniform(0, 1)
                    moment = _killed(
                        experiment.at(folder / "run", round_seed), folder, share * length, begun=turn % 2 == 1
                    )
                    if moment is None:
                        break
                    part.case([], f"killed {moment}")
                part.fail(resumed(experiment, folder, folder / "twin", round_seed))
                runs += 1
                print(f"{part.cases} kills of {runs} runs", file=sys.stderr, flush=True)
        round_seed += 1
    part.counts["runs"] = runs
    return part


def _killed(words: list[str], folder: Path, after: float, *, begun: bool) -> str | None:
    """Kill a sitting; where that found it, None if it had ended.

    Args:
        words: of the command.
        folder: holds the run.
        after: seconds after which it is killed.
        begun: whether these begin when the run does, or goes on, and are half as many.

    Raises:
        RuntimeError: it had failed.
    """
    phase = Shared()
    sitting = Sitting(words, folder / "log.txt", lambda: tell_phases(phase))
    seen: list[float] = []

    def due() -> bool:
        if phase.text and not seen:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + after / 2

    ended = sitting.wait(sends=signal.SIGKILL, after=0 if begun else after, when=due if begun else None)
    if ended.code > 0:
        raise RuntimeError(f"exits {ended.code}:\n{ended.said}")
    if not ended.killed:
        return None
    left = [name for run in (folder / "run").glob("*/*/*/*") for name in leftovers(run)]
    if not left:
        return phase.text or "before the first step, or the first after a resume"
    name = left[0].split(".")[1]
    return f"while {'checkpoint' if name.startswith('tmp') else name} was written"


def tell_phases(phase: Shared) -> None:
    """Make this process say what it is at."""

    def says(owner: Any, name: str, during: str, after: str | None) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def telling(*args: Any, **kwargs: Any) -> Any:
            phase.text = during
            try:
                return plain(*args, **kwargs)
            finally:
                phase.text = after or during

        setattr(owner, name, telling)

    says(Journal, "append", "while it trained", None)
    says(Evaluator, "score", "while it evaluated", "while it trained")
    says(holdout, "keep", "after training", None)


def crash_points(points: int, chosen: tuple[Experiment, ...] = CRASHED) -> Part:
    """At the calls by which a run changes its files: at most so many, spread evenly."""
    part = Part("kills at every write, rename and removal")
    for experiment in chosen:
        with tempfile.TemporaryDirectory(prefix="zo-points-") as name:
            folder = Path(name)
            count = len(sites_of(experiment, folder))
            for at in spread(count, points):
                part.case([f"site {at} of {count}: {what}" for what in crash(experiment, folder, at)])
        part.counts[experiment.name] = count
    return part


def sites_of(experiment: Experiment, folder: Path) -> list[str]:
    """Run the twin and name every site."""
    notes = folder / "sites.txt"

    def note(number: int, kind: str, file: str) -> None:
        os.write(handle, f"{kind} {Path(file).name}\n".encode())

    handle = os.open(notes, os.O_WRONLY | os.O_CREAT)
    try:
        root = folder / "twin"
        ended = sit(experiment.at(root), folder / "twin.txt", lambda: watch(root, note))
    finally:
        os.close(handle)
    if ended.code:
        raise RuntimeError(f"{experiment.name} exits {ended.code} undisturbed:\n{ended.said}")
    return notes.read_text(encoding="utf-8").splitlines()


def crash(experiment: Experiment, folder: Path, at: int) -> list[str]:
    """Kill a fresh run at one site, resume it, and say how it differs from the twin in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        root = own / "run"
        ended = sit(experiment.at(root), own / "log.txt", lambda: watch(root, killing(at)))
        if not ended.killed:
            return [f"{experiment.name}: not reached, exits {ended.code}: {ended.said[-400:]}"]
        return resumed(experiment, own, folder / "twin")


def spread(count: int, points: int) -> Iterator[int]:
    """At most `points` of 1..count, evenly."""
    if points >= count:
        yield from range(1, count + 1)
        return
    yield from sorted({1 + round(i * (count - 1) / max(points - 1, 1)) for i in range(points)})


def commands(kills: int, seed: int) -> Part:
    """Real processes, from the shell's view."""
    part, draw = Part("kills of a real zo-run process"), random.Random(seed)
    experiment = short("ar1zo", "budget.queries=400", *NOISE)
    with tempfile.TemporaryDirectory(prefix="zo-commands-") as name:
        folder = Path(name)
        undisturbed(experiment, folder)
        command = [sys.executable, "-m", "zo_runner.cli"]
        start = time.monotonic()
        subprocess.run([*command, *experiment.at(folder / "timed")], check=True, capture_output=True)
        length = time.monotonic() - start
        for _ in range(kills):
            process = subprocess.Popen([*command, *experiment.at(folder / "run")], stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=draw.uniform(0.3, 0.7) * length)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                part.cases += 1
        if kills:
            part.fail(resumed(experiment, folder, folder / "twin"))
    return part


def main() -> None:
    """Kill, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description="Kill runs and resume them.")
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--points", type=int, default=1000, help="crash points per experiment, at most")
    parser.add_argument("--commands", type=int, default=3, help="of a real process")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    given = parser.parse_args()
    parts: list[Callable[[], Part]] = [
        lambda: random_kills(given.kills, given.seed),
        lambda: crash_points(given.points),
        lambda: commands(given.commands, given.seed),
    ]
    write(
        [part for part, wanted in zip(parts, (given.kills, given.points, given.commands), strict=True) if wanted],
        given.json,
    )


if __name__ == "__main__":
    main()
