"""A disk that fills up: at every write, on a real small file system, and at a limit of the file size.

The run must end with exit code 1 and one line that names a file and the reason, leave no file half written, and go on
by the same command once there is space, to the numbers of an undisturbed run.
"""

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EFBIG, ENOSPC
from functools import partial
from pathlib import Path

from tests.faults.experiments import NOISE, Experiment, short
from tests.faults.forked import Ended
from tests.faults.kills import spread, trial_with_sites
from tests.faults.report import Part
from tests.faults.sites import FREEING, full, watch
from tests.faults.trials import Trial, trial

EXPERIMENTS = (
    short("ar1zo", "budget.queries=16", "budget.eval_every=8", *NOISE),
    short("mezo", "budget.queries=12", "budget.eval_every=8", "model=pocket_qwen3"),
)

# Sizes of the small file system, as shares of the size of a finished run.
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

PAGE = resource.getpagesize()


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """The kinds of full disks."""
    return [partial(full_at_every_write, 2 if quick else 1000), full_file_system, largest_file]


def full_at_every_write(points: int, chosen: tuple[Experiment, ...] = EXPERIMENTS) -> list[Part]:
    """No space from the n-th write on, and at the n-th write alone, for at most `points` n of each run."""
    part = Part("disk full at every write")
    for experiment in chosen:
        with trial_with_sites(experiment) as (tried, all_sites):
            sites = [site for site in all_sites if site.split()[0] not in FREEING]
            part.counts[experiment.name] = len(sites)
            for at in spread(len(sites), points):
                for until in (None, at + 1):
                    tried.clear()
                    ended = tried.run(lambda at=at, until=until: watch(tried.root, full(at, until), freeing=False))
                    found = [] if ended.code == 0 and until else unreported(ended, tried.root, ENOSPC)
                    found += tried.resume()
                    where = f"{'once' if until else 'from'} {sites[at - 1]} ({at} of {len(sites)})"
                    answer = "finished all the same" if ended.code == 0 else "ended with one line"
                    part.case([f"{where}: {failure}" for failure in found], answer)
    return [part]


def unreported(ended: Ended, root: Path, *errors: int) -> list[str]:
    """Faults in the report of a failed run: it must name a file and a reason in one line, and leave no torn file.

    Args:
        ended: the end of its command.
        root: of the run; the line must name a file below it.
        errors: the line must name one of them; none for any.
    """
    found = []
    if not ended.reported:
        found.append(str(ended))
    elif str(root) not in ended.said:
        found.append(f"no file is named: {ended}")
    elif errors and not any(os.strerror(number) in ended.said for number in errors):
        found.append(f"no reason is given: {ended}")
    for file in root.glob("*/*/*/*/result.json"):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found.append("result.json is not whole")
    return found


def full_file_system() -> list[Part]:
    """A tmpfs that is too small, and then is enlarged."""
    part = Part("a real full disk (tmpfs)")
    for experiment in EXPERIMENTS:
        with trial(experiment) as tried:
            pages = sum(file.stat().st_size // PAGE + 1 for file in (tried.folder / "twin").rglob("*"))
            for size in sorted({max(2, round(share * pages)) * PAGE for share in SHARES}):
                with mounted(tried.root, f"size={size}") as refusal:
                    if refusal:
                        part.skipped = refusal
                        return [part]
                    ended = tried.run()
                    found = unreported(ended, tried.root, ENOSPC) if ended.code else []
                    subprocess.run(["mount", "-o", "remount,size=1g", tried.root], check=True)
                    found += tried.resume()
                part.case([f"{size} bytes, {failure}" for failure in found])
    return [part]


@contextmanager
def mounted(place: Path, options: str) -> Iterator[str]:
    """Mount a new tmpfs at `place`; yields the reason if it is refused, else an empty text."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        yield done.stderr.strip() if done.returncode else ""
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def largest_file() -> list[Part]:
    """No file may grow beyond a size (RLIMIT_FSIZE)."""
    part = Part("a limit of the file size")
    for experiment in EXPERIMENTS:
        with trial(experiment) as tried:
            for size in _file_sizes(tried):
                tried.clear()
                ended = tried.run(partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))
                found = unreported(ended, tried.root, EFBIG) if ended.code else []
                part.case([f"{size} bytes, {failure}" for failure in found + tried.resume()])
    return [part]


def _file_sizes(tried: Trial) -> list[int]:
    """One byte less than each file of the twin has, where the output of a command fits."""
    sizes = {file.stat().st_size for file in (tried.folder / "twin").rglob("*") if file.is_file()}
    return sorted(size - 1 for size in sizes if size > 1024)
