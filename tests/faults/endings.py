"""What a cluster does to a run: signals, a second process, stale locks, folders that vanish, trackers that die.

    python -m tests.faults.endings [--signals 20] [--json FILE]

Whatever happens, the run ends with the right exit code and one line, and the same command goes on to the numbers of a
run that was never disturbed.
"""

import argparse
import ctypes
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from errno import EACCES, ENOENT, EROFS
from pathlib import Path

from tests.faults.disk import faulty, mounted
from tests.faults.experiments import NOISE, Experiment, short
from tests.faults.kills import only_run, resumed, undisturbed
from tests.faults.report import Part, write
from tests.faults.sittings import Sitting, sit
from tests.faults.twins import differences
from zo_runner.records.json_files import read_object

# Sent to a run that goes on all the same, where `when` is what disturbs it.
HARMLESS = signal.SIGCONT

DISTURBED = short("ar1zo", "budget.queries=120", *NOISE)

# What a shell makes of a signal: the exit code of a program that ends because of it.
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

_CAPABILITY_VERSION, _CAP_DAC = 0x20080522, 0b110

# The address space that a run is left beyond what it holds when it begins, in MiB.
_SPARE = (0, 8, 32, 64, 128)


def signals(count: int) -> Part:
    """SIGTERM and SIGINT at random moments: the exit code says which, the result that it was interrupted."""
    part, draw = Part("SIGTERM and SIGINT"), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="zo-signals-") as name:
        folder = Path(name)
        length = undisturbed(DISTURBED, folder).seconds
        while part.cases < count:
            which = (signal.SIGTERM, signal.SIGINT)[part.cases % 2]
            root = folder / "run"
            begun: list[bool] = []

            def started(root: Path = root, begun: list[bool] = begun) -> bool:
                begun.append(any(root.glob("*/*/*/*/meta.json")))
                return True

            sitting = Sitting(DISTURBED.at(root), folder / "log.txt")
            ended = sitting.wait(sends=which, after=draw.uniform(0, length), when=started)
            if ended.code == 0:  # it had ended
                shutil.rmtree(root)
                continue
            early = not begun[-1]
            if early:  # nothing has been written, and nobody has to catch anything
                part.check(ended.code in (_CODES[which], -which), f"{which.name} early: exits {ended.code}")
            else:
                part.check(ended.code == _CODES[which], f"{which.name}: exits {ended.code}: {ended.said[-600:]!r}")
                states = [(read_object(file) or {}).get("status") for file in root.glob("*/*/*/*/result.json")]
                if states not in (["interrupted"], ["done"]):  # done: it came while that was being written
                    part.fail([f"{which.name}: the results are {states}"])
            if "Traceback" in ended.said:
                part.fail([f"{which.name}: {ended.said[-600:]!r}"])
            moment = "before the run began" if early else "during the run"
            part.counts[f"{which.name} {moment}"] = part.counts.get(f"{which.name} {moment}", 0) + 1
            if part.cases % 4 == 0 or part.cases == count:
                part.fail(resumed(DISTURBED, folder, folder / "twin"))
                shutil.rmtree(root)
    return part


def together() -> Part:
    """Two processes at one run, and a lock that a killed one has left."""
    part = Part("two processes, stale locks")
    with tempfile.TemporaryDirectory(prefix="zo-together-") as name:
        folder = Path(name)
        undisturbed(DISTURBED, folder)
        words = DISTURBED.at(folder / "run")
        first, second = (Sitting(words, folder / f"{who}.txt") for who in ("first", "second"))
        ends = [first.wait(), second.wait()]
        part.check([end.code for end in ends] == [0, 0], f"two at once: {ends}")
        part.check(sum("Waiting for it" in end.said for end in ends) == 1, f"nobody waited: {ends}")
        part.fail(resumed(DISTURBED, folder, folder / "twin"))
        shutil.rmtree(folder / "run")
        killed = Sitting(words, folder / "log.txt").wait(sends=signal.SIGKILL, when=_rows(folder / "run", 3))
        part.check(bool(list((folder / "run").glob(".*.lock"))), "the killed process has left no lock to find")
        part.check(killed.killed, "it was not killed")
        part.fail(resumed(DISTURBED, folder, folder / "twin"))
    return part


def _rows(root: Path, count: int) -> Callable[[], bool]:
    """Whether the journal below `root` has so many."""
    return lambda: any(file.read_bytes().count(b"\n") >= count for file in root.glob("*/*/*/*/journal.jsonl"))


def places() -> Part:
    """Folders that cannot be written, and such as vanish in the middle."""
    part = Part("unwritable and vanished folders")
    with tempfile.TemporaryDirectory(prefix="zo-places-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        undisturbed(DISTURBED, folder)
        (twin,) = (folder / "twin").glob("*/*/*/*")
        inside = twin.relative_to(folder / "twin")
        root = folder / "run"
        run = root / inside
        run.mkdir(parents=True)
        way = [root, *(place for place in run.parents if root in place.parents), run]
        for closed in (root, run, run.parent):
            for place in way:
                place.chmod(0o555 if place == closed else 0o777)
            if closed == run.parent:
                way.remove(run)
                run.rmdir()
            ended = sit(DISTURBED.at(root), folder / "log.txt", _bound)
            where = closed.relative_to(folder)
            part.case([f"{where} unwritable: {what}" for what in faulty(ended, root, EACCES)])
        part.fail(resumed(DISTURBED, folder, folder / "twin"))
        shutil.rmtree(root)
        with mounted(root, "ro") as refusal:
            if not refusal:
                ended = sit(DISTURBED.at(root), folder / "log.txt")
                part.case([f"read-only file system: {what}" for what in faulty(ended, root, EROFS)])
        for rows in (1, 7, 20):
            sitting = Sitting(DISTURBED.at(root), folder / "log.txt")
            ended = sitting.wait(sends=HARMLESS, when=_removed(root, rows))
            part.case([f"removed at row {rows}: {what}" for what in faulty(ended, root, ENOENT)])
            part.fail(resumed(DISTURBED, folder, folder / "twin"))
            shutil.rmtree(root)
    return part


def _bound() -> None:
    """Be somebody whom permissions bind: root without CAP_DAC_OVERRIDE, and without CAP_DAC_READ_SEARCH."""
    if os.getuid() == 0:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of the lower 32 and of the upper
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capget(header, sets):
            raise OSError(ctypes.get_errno(), "capget")
        sets[0] &= ~_CAP_DAC
        if libc.capset(header, sets):
            raise OSError(ctypes.get_errno(), "capset")


def _removed(root: Path, rows: int) -> Callable[[], bool]:
    """Remove the run's folder once its journal has so many rows."""
    enough = _rows(root, rows)

    def remove() -> bool:
        if not enough():
            return False
        while any(root.glob("*/*/*/*")):  # the run may be writing into it at this moment
            for run in root.glob("*/*/*/*"):
                shutil.rmtree(run, ignore_errors=True)
        return True

    return remove


def clock() -> Part:
    """A clock that goes backwards all the time."""
    part = Part("a clock that goes backwards")
    with tempfile.TemporaryDirectory(prefix="zo-clock-") as name:
        folder = Path(name)
        undisturbed(DISTURBED, folder)
        ended = sit(DISTURBED.at(folder / "run"), folder / "log.txt", _turn_back)
        part.check(ended.code == 0, f"exits {ended.code}: {ended.said[-600:]!r}")
        part.fail(resumed(DISTURBED, folder, folder / "twin"))
    return part


def _turn_back() -> None:
    now, ticks = time.time(), 0

    def earlier() -> float:
        nonlocal ticks
        ticks += 1
        return now - 60.0 * ticks

    time.time = earlier


def tracker() -> Part:
    """W&B that cannot be reached, and whose service is killed: the run warns, and is what it would have been."""
    part = Part("W&B unreachable, and dead")
    words = [word for word in DISTURBED.words if word != "tracker=none"]
    experiment = Experiment(DISTURBED.name, (*words, "tracker=wandb"))
    with tempfile.TemporaryDirectory(prefix="zo-tracker-") as name:
        folder = Path(name)
        undisturbed(experiment, folder)
        for what in ("unreachable", "dead"):
            root = folder / what
            sitting = Sitting(experiment.at(root), folder / "log.txt", _unreachable if what == "unreachable" else None)
            dies = _service_killed(sitting.pid, root)
            ended = sitting.wait(sends=HARMLESS, when=dies) if what == "dead" else sitting.wait()
            warned = ended.said.count("zo-run: warning: W&B")
            told = ended.code == 0 and warned == 1 and "Traceback" not in ended.said
            part.check(told, f"{what}: exits {ended.code} and says {ended.said[-600:]!r}")
            if told:
                part.fail([f"{what}: {other}" for other in differences(only_run(root), only_run(folder / "twin"))])
    return part


def _unreachable() -> None:
    """A key, and a server where nobody listens."""
    del os.environ["WANDB_MODE"]
    os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}


def _service_killed(pid: int, root: Path) -> Callable[[], bool]:
    """Kill the children of a process once its run has taken some steps: W&B's service is the only one."""
    enough = _rows(root, 3)

    def kill() -> bool:
        if not enough():
            return False
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        children = {int(word) for file in lists for word in file.read_text(encoding="ascii").split()}
        for child in children:
            os.kill(child, signal.SIGKILL)
        return bool(children)

    return kill


def memory() -> Part:
    """Too little memory: one line, or enough after all."""
    part = Part("out of memory")
    words = ("model=pocket_qwen3", "batch_size=64", "task.num_train=64", "budget.queries=72")
    experiment = short("mezo", *words)
    with tempfile.TemporaryDirectory(prefix="zo-memory-") as name:
        folder = Path(name)
        undisturbed(experiment, folder)
        for spare in _SPARE:
            root = folder / f"run-{spare}"
            ended = sit(experiment.at(root), folder / "log.txt", lambda spare=spare: _confine(spare))  # type: ignore[misc]
            answer = "enough" if ended.code == 0 else "one line"
            part.check(ended.code == 0 or ended.reported, f"{spare} MiB: exits {ended.code}: {ended.said[-600:]!r}")
            part.counts[answer] = part.counts.get(answer, 0) + 1
            if ended.code:
                shutil.rmtree(folder / "run", ignore_errors=True)
                if root.exists():
                    root.rename(folder / "run")
                part.fail(resumed(experiment, folder, folder / "twin"))
    return part


def _confine(spare: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + spare * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def main() -> None:
    """Disturb runs, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.endings", description="Disturb runs from outside.")
    parser.add_argument("--signals", type=int, default=20, help="how many are sent")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    given = parser.parse_args()
    write([lambda: signals(given.signals), together, places, clock, tracker, memory], given.json)


if __name__ == "__main__":
    main()
