"""Faults of a cluster: signals, a second process, stale locks, vanished folders, a dead tracker, little memory.

The run must end with the right exit code and one line, and the same command must go on to the numbers of an undisturbed
run.
"""

import ctypes
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from errno import EACCES, ENOENT, EROFS
from functools import partial
from pathlib import Path

from tests.faults.disk import mounted, unreported
from tests.faults.experiments import NOISE, Experiment, short
from tests.faults.report import Part
from tests.faults.trials import Trial, only_run, trial
from tests.faults.twins import differences
from zo_runner.records.json_files import read_object

DISTURBED = short("ar1zo", "budget.queries=120", *NOISE)

# Sent where the condition `when` is itself the fault.
HARMLESS = signal.SIGCONT

# A shell's exit codes for programs that end because of a signal.
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

# Version of capget(2), and the bits of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
CAPABILITY_VERSION, CAP_DAC = 0x20080522, 0b110

# Address space beyond its size at the start, in MiB.
SPARE = (0, 8, 32, 64, 128)


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """The kinds of disturbances."""
    return [partial(signals, 2 if quick else 20), two_processes, folders, clock, tracker, memory]


def signals(count: int) -> list[Part]:
    """SIGTERM and SIGINT at random moments: the exit code tells which, the result is `interrupted`."""
    part, draw = Part("SIGTERM and SIGINT"), random.Random(0)
    with trial(DISTURBED) as tried:
        while part.cases < count:
            which = (signal.SIGTERM, signal.SIGINT)[part.cases % 2]
            begun = []

            def note(begun: list[bool] = begun) -> bool:
                begun.append(any(tried.root.glob("*/*/*/*/meta.json")))
                return True

            ended = tried.start().wait(send=which, after=draw.uniform(0, tried.ended.seconds), when=note)
            if ended.code == 0:  # it had ended
                tried.clear()
                continue
            early = not begun[-1]
            found = [f"{which.name}: {ended}"] if "Traceback" in ended.said else []
            if ended.code not in ((CODES[which], -which) if early else (CODES[which],)):
                found.append(f"{which.name}{' early' if early else ''}: {ended}")
            states = [(read_object(file) or {}).get("status") for file in tried.root.glob("*/*/*/*/result.json")]
            if not early and states not in (["interrupted"], ["done"]):  # done: it came while that was being written
                found.append(f"{which.name}: the results are {states}")
            part.case(found, f"{which.name} {'before the run began' if early else 'during the run'}")
            if part.cases % 4 == 0 or part.cases == count:
                part.fail(tried.resume())
                tried.clear()
    return [part]


def two_processes() -> list[Part]:
    """Two processes at one run, and the lock of a killed process."""
    part = Part("two processes, stale locks")
    with trial(DISTURBED) as tried:
        first = tried.start()
        tried.log = tried.folder / "second.txt"
        ends = [tried.start().wait(), first.wait()]
        part.check([end.code for end in ends] == [0, 0], f"two at once: {ends}")
        part.check(sum("Waiting for it" in end.said for end in ends) == 1, f"nobody waited: {ends}")
        part.fail(tried.resume())
        tried.clear()
        killed = tried.start().wait(send=signal.SIGKILL, when=lambda: tried.has_steps(3))
        part.check(bool(list(tried.root.glob(".*.lock"))), "the killed process has left no lock to find")
        part.check(killed.killed, f"not killed: {killed}")
        part.fail(tried.resume())
    return [part]


def folders() -> list[Part]:
    """Folders without write permission, on a read-only file system, and removed in the middle of a run."""
    part = Part("unwritable and vanished folders")
    with trial(DISTURBED) as tried:
        tried.folder.chmod(0o755)
        root = tried.root
        run = root / tried.twin.relative_to(tried.folder / "twin")
        run.mkdir(parents=True)
        way = [root, *(place for place in run.parents if root in place.parents), run]
        for closed in (root, run, run.parent):
            for place in way:
                place.chmod(0o555 if place == closed else 0o777)
            if closed == run.parent:
                way.remove(run)
                run.rmdir()
            where = closed.relative_to(tried.folder)
            part.case([f"{where} unwritable: {x}" for x in unreported(tried.run(_drop_privileges), root, EACCES)])
        part.fail(tried.resume())
        tried.clear()
        with mounted(root, "ro") as refusal:
            if not refusal:
                part.case([f"read-only file system: {x}" for x in unreported(tried.run(), root, EROFS)])
        for steps in (1, 7, 20):
            ended = tried.start().wait(send=HARMLESS, when=partial(_remove_run, tried, steps))
            part.case([f"removed after {steps} steps: {x}" for x in unreported(ended, root, ENOENT)])
            part.fail(tried.resume())
            tried.clear()
    return [part]


def _drop_privileges() -> None:
    """Make permissions count for root too, by giving up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    if os.getuid() == 0:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of the lower 32 and of the upper
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capget(header, sets):
            raise OSError(ctypes.get_errno(), "capget")
        sets[0] &= ~CAP_DAC
        if libc.capset(header, sets):
            raise OSError(ctypes.get_errno(), "capset")


def _remove_run(tried: Trial, steps: int) -> bool:
    """Remove the run's folder once its journal has so many steps; True if it did."""
    if not tried.has_steps(steps):
        return False
    while any(tried.root.glob("*/*/*/*")):  # the run may be writing into it at this moment
        for run in tried.root.glob("*/*/*/*"):
            shutil.rmtree(run, ignore_errors=True)
    return True


def clock() -> list[Part]:
    """A clock that goes backwards all the time."""
    part = Part("a clock that goes backwards")
    with trial(DISTURBED) as tried:
        ended = tried.run(_turn_back)
        part.check(ended.code == 0, str(ended))
        part.fail(tried.resume())
    return [part]


def _turn_back() -> None:
    now, ticks = time.time(), 0

    def earlier() -> float:
        nonlocal ticks
        ticks += 1
        return now - 60.0 * ticks

    time.time = earlier


def tracker() -> list[Part]:
    """W&B without a server, and with a killed service: the run warns once and ends as it would have."""
    part = Part("W&B unreachable, and dead")
    words = [word for word in DISTURBED.words if word != "tracker=none"]
    with trial(Experiment(DISTURBED.name, (*words, "tracker=wandb"))) as tried:
        for fault in ("unreachable", "dead"):
            tried.clear()
            if fault == "dead":
                command = tried.start()
                ended = command.wait(send=HARMLESS, when=partial(_kill_service, tried, command.pid))
            else:
                ended = tried.run(_lose_server)
            warned = ended.said.count("zo-run: warning: W&B")
            told = ended.code == 0 and warned == 1 and "Traceback" not in ended.said
            part.check(told, f"{fault}: {ended}")
            if told:
                part.fail([f"{fault}: {other}" for other in differences(only_run(tried.root), tried.twin)])
    return [part]


def _lose_server() -> None:
    """Set a key, and a server where nobody listens."""
    del os.environ["WANDB_MODE"]
    os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}


def _kill_service(tried: Trial, pid: int) -> bool:
    """Kill the children of a process, of which W&B's service is the only one, after three steps; True if it did."""
    if not tried.has_steps(3):
        return False
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = {int(word) for file in lists for word in file.read_text(encoding="ascii").split()}
    for child in children:
        os.kill(child, signal.SIGKILL)
    return bool(children)


def memory() -> list[Part]:
    """Too little memory: the run fails in one line, or gets by."""
    part = Part("out of memory")
    with trial(short("mezo", "model=pocket_qwen3", "batch_size=64", "task.num_train=64", "budget.queries=72")) as tried:
        for spare in SPARE:
            tried.clear()
            ended = tried.run(partial(_limit_memory, spare))
            failures = [] if ended.code == 0 or ended.reported else [f"{spare} MiB: {ended}"]
            part.case(failures, "enough" if ended.code == 0 else "one line")
            if ended.code:
                part.fail(tried.resume())
    return [part]


def _limit_memory(spare: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + spare * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
