"""A disk that fills up: at every write, on a real small file system, and at a limit of the file size.

    python -m tests.faults.disk [--points 1000] [--json FILE]

The run must end with exit 1 and one line that names a file and the reason, leave nothing half-written, and go on by
the same command once there is space, to the numbers of a run that was never disturbed. --points N takes at most N
of the writes of each run, spread evenly.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EFBIG, ENOSPC
from pathlib import Path

from tests.faults.experiments import NOISE, Experiment, short
from tests.faults.kills import resumed, sites_of, spread, undisturbed
from tests.faults.report import Part, write
from tests.faults.sites import FREEING, full, watch
from tests.faults.sittings import Ended, sit

FILLED = (
    short("ar1zo", "budget.queries=16", "budget.eval_every=8", *NOISE),
    short("mezo", "budget.queries=12", "budget.eval_every=8", "model=pocket_qwen3"),
)

# Sizes of the small file system, as shares of what the run takes.
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

_PAGE = resource.getpagesize()


def at_every_write(points: int, chosen: tuple[Experiment, ...] = FILLED) -> Part:
    """No space from the n-th write on, and at the n-th write alone."""
    part = Part("disk full at every write")
    for experiment in chosen:
        with tempfile.TemporaryDirectory(prefix="zo-disk-") as name:
            folder = Path(name)
            sites = [site for site in sites_of(experiment, folder) if site.split()[0] not in FREEING]
            part.counts[experiment.name] = len(sites)
            for at in spread(len(sites), points):
                for until in (None, at + 1):
                    what = f"{'once' if until else 'from'} {sites[at - 1]} ({at} of {len(sites)})"
                    found, answer = _filled(experiment, folder, at, until)
                    part.case([f"{what}: {failure}" for failure in found], answer)
    return part


def _filled(experiment: Experiment, folder: Path, at: int, until: int | None) -> tuple[list[str], str]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        root = own / "run"
        ended = sit(experiment.at(root), own / "log.txt", lambda: watch(root, full(at, until), frees=False))
        answer = "finished all the same" if ended.code == 0 else "ended with one line"
        found = [] if ended.code == 0 and until else faulty(ended, root, ENOSPC)
        return found + resumed(experiment, own, folder / "twin"), answer


def faulty(ended: Ended, root: Path, *errors: int) -> list[str]:
    """What is wrong with how a run met a fault: it must say a file and a reason in one line, and leave no torn file.

    Args:
        ended: the sitting.
        root: of the run; it must be named.
        errors: of which one must be named; none for any.
    """
    found = []
    if not ended.reported:
        found.append(f"exits {ended.code} and says {ended.said[-600:]!r}")
    elif str(root) not in ended.said:
        found.append(f"names no file: {ended.said[-600:]!r}")
    elif errors and not any(os.strerror(number) in ended.said for number in errors):
        found.append(f"gives no reason: {ended.said[-600:]!r}")
    for file in root.glob("*/*/*/*/result.json"):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found.append("result.json is not whole")
    return found


def on_small_file_system() -> Part:
    """A tmpfs that is too small, and then is not."""
    part = Part("a real full disk (tmpfs)")
    for experiment in FILLED:
        with tempfile.TemporaryDirectory(prefix="zo-tmpfs-") as name:
            folder = Path(name)
            undisturbed(experiment, folder)
            pages = sum(file.stat().st_size // _PAGE + 1 for file in (folder / "twin").rglob("*"))
            for size in sorted({max(2, round(share * pages)) * _PAGE for share in _SHARES}):
                root = folder / "run"
                with mounted(root, f"size={size}") as refusal:
                    if refusal:
                        part.skipped = refusal
                        return part
                    ended = sit(experiment.at(root), folder / "log.txt")
                    found = faulty(ended, root, ENOSPC) if ended.code else []
                    subprocess.run(["mount", "-o", "remount,size=1g", root], check=True)
                    found += resumed(experiment, folder, folder / "twin")
                part.case([f"{size} bytes, {failure}" for failure in found])
    return part


@contextmanager
def mounted(place: Path, options: str) -> Iterator[str]:
    """A new tmpfs at `place`; the block is given why there is none, or nothing."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        yield done.stderr.strip() if done.returncode else ""
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def at_largest_file() -> Part:
    """No file may grow beyond a size (RLIMIT_FSIZE)."""
    part = Part("a limit of the file size")
    for experiment in FILLED:
        with tempfile.TemporaryDirectory(prefix="zo-fsize-") as name:
            folder = Path(name)
            undisturbed(experiment, folder)
            sizes = sorted({file.stat().st_size for file in (folder / "twin").rglob("*") if file.is_file()})
            for size in [size - 1 for size in sizes if size > 1024]:  # what the run says must fit
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    root = Path(own) / "run"
                    ended = sit(experiment.at(root), Path(own) / "log.txt", _limited(size))
                    found = faulty(ended, root, EFBIG) if ended.code else []
                    found += resumed(experiment, Path(own), folder / "twin")
                    part.case([f"{size} bytes, {failure}" for failure in found])
    return part


def _limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main() -> None:
    """Fill disks, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.disk", description="Fill the disk under a run.")
    parser.add_argument("--points", type=int, default=1000, help="writes per experiment, at most")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    given = parser.parse_args()
    write([lambda: at_every_write(given.points), on_small_file_system, at_largest_file], given.json)


if __name__ == "__main__":
    main()
