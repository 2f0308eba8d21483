"""Files of a run that are torn, tampered with or gone when the same command comes again.

    python -m tests.faults.files [--json FILE]

A run is killed in the middle. Its files are then cut at telling bytes, or changed where a checksum guards them, and the
command is given again: it either finishes to the numbers of a run that was never disturbed, or refuses with one line
that names the file. It never finishes to other numbers.
"""

import argparse
import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.experiments import LR, NOISE, Experiment, short
from tests.faults.kills import undisturbed
from tests.faults.report import Part, write
from tests.faults.sittings import Ended, Sitting, sit
from tests.faults.twins import differences

BROKEN = (
    short("ar1zo", "budget.queries=40", "method.order=shuffled", *NOISE),
    short("zo_adam", "budget.queries=40", "model=pocket_qwen3", *LR),
)

# What has a checksum, besides the result. Nothing is computed from the others.
_GUARDED = ("checkpoint.safetensors", "journal.jsonl")

# Steps of which the journal tells when the run is killed: past its second checkpoint.
_STEPS = 12

Change = Callable[[bytes], bytes]


def cuts(data: bytes) -> Iterator[int]:
    """Lengths to cut a file to: at both ends, around the ends of lines, in the header of a safetensors file."""
    size = len(data)
    at = {0, 1, 4, 7, 8, 9, size // 4, size // 2, 3 * size // 4, size - 2, size - 1}
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")][-4:]
    at |= {end + shift for end in ends for shift in (-2, -1, 0, 1, 9)}
    header = int.from_bytes(data[:8], "little")
    if header < size:
        at |= {8 + header + shift for shift in (-1, 0, 1)}
    yield from sorted(cut for cut in at if 0 <= cut < size)


def changes(data: bytes) -> dict[str, Change]:
    """Ways to tamper with a file."""
    spots = sorted({round(share * (len(data) - 1)) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)})
    found: dict[str, Change] = {f"byte {i} flipped": _flip(i) for i in spots}
    found["foreign bytes at the end"] = lambda text: text + b"\x00\xff{]\n"
    lines = data.splitlines(keepends=True)
    if len(lines) > 3 and lines[1].startswith(b"{"):
        found["a line twice"] = lambda text: b"".join([*lines[:3], *lines[2:]])
        found["a line gone"] = lambda text: b"".join([*lines[:1], *lines[2:]])
        found["two lines exchanged"] = lambda text: b"".join([lines[0], lines[2], lines[1], *lines[3:]])
        for number in (0, len(lines) - 2, len(lines) - 1):
            found[f"another number in line {number + 1}"] = _renumbered(number)
    elif data.startswith(b"{"):
        found["another number"] = lambda text: text.replace(b'"queries": ', b'"queries": 1', 1)
    return found


def _flip(at: int) -> Change:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _renumbered(number: int) -> Change:
    """A line whose first float is another one, in perfect JSON."""

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        row = json.loads(lines[number])
        key = next(key for key in ("slopes", "dev/loss", "train/loss", "lr") if key in row)
        row[key] = [1.5] if key == "slopes" else 1.5
        lines[number] = json.dumps(row).encode() + b"\n"
        return b"".join(lines)

    return change


def in_the_middle(experiment: Experiment, folder: Path) -> Path:
    """Kill a run below `folder/begun` in the middle; its folder."""
    root = folder / "begun"

    def far_enough() -> bool:
        return any(file.read_bytes().count(b"\n") >= _STEPS for file in root.glob("*/*/*/*/journal.jsonl"))

    ended = Sitting(experiment.at(root), folder / "log.txt").wait(sends=signal.SIGKILL, when=far_enough)
    if not ended.killed:
        raise RuntimeError(f"{experiment.name} exits {ended.code} before it could be killed:\n{ended.said}")
    (run,) = root.glob("*/*/*/*")
    return run


def of_a_killed_run() -> list[Part]:
    """Torn, tampered and missing files of a run that has not ended."""
    parts = [Part("torn files"), Part("files tampered with"), Part("missing files")]
    torn, tampered, missing = parts
    for experiment in BROKEN:
        with tempfile.TemporaryDirectory(prefix="zo-files-") as name:
            folder = Path(name)
            undisturbed(experiment, folder)
            run = in_the_middle(experiment, folder)
            for file in sorted(path for path in run.iterdir() if path.is_file() and not path.name.startswith(".")):
                data = file.read_bytes()
                for size in cuts(data):
                    _given_again(
                        torn, experiment, folder, run, f"{file.name} cut to {size} of {len(data)}", data[:size]
                    )
                for what, change in changes(data).items() if file.name in _GUARDED else ():
                    _given_again(tampered, experiment, folder, run, f"{file.name}: {what}", change(data))
                _given_again(missing, experiment, folder, run, f"{file.name} missing", None)
    return parts


def _given_again(part: Part, experiment: Experiment, folder: Path, run: Path, what: str, data: bytes | None) -> None:
    """Put `data` in the place of a file of the killed run (the first word of `what`), and give the command again."""
    file = what.split()[0].rstrip(":")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name) / "run"
        shutil.copytree(folder / "begun", root)
        disturbed = root / run.relative_to(folder / "begun")
        if data is None:
            (disturbed / file).unlink()
        else:
            (disturbed / file).write_bytes(data)
        ended = sit(experiment.at(root), Path(name) / "log.txt")
        (twin,) = (folder / "twin").glob("*/*/*/*")
        found, answer = _answer(ended, disturbed, twin, file)
    part.case([f"{experiment.name}, {what}: {failure}" for failure in found], f"{file} {answer}")


def _answer(ended: Ended, run: Path, twin: Path, file: str) -> tuple[list[str], str]:
    if ended.code == 0:
        return differences(run, twin), "made good"
    found = [] if ended.reported and file in ended.said else [f"exits {ended.code} and says {ended.said[-600:]!r}"]
    return found, "refused"


def of_a_finished_run() -> Part:
    """A finished run's result, torn or tampered with: never shown as the result."""
    part = Part("a finished run's result")
    experiment = BROKEN[0]
    with tempfile.TemporaryDirectory(prefix="zo-result-") as name:
        folder = Path(name)
        said = undisturbed(experiment, folder).said
        (twin,) = (folder / "twin").glob("*/*/*/*")
        data = (twin / "result.json").read_bytes()
        for what, changed in {
            **{f"cut to {size}": data[:size] for size in cuts(data)},
            **{what: change(data) for what, change in changes(data).items()},
        }.items():
            with tempfile.TemporaryDirectory(dir=folder) as own:
                root = Path(own) / "run"
                shutil.copytree(folder / "twin", root)
                run = root / twin.relative_to(folder / "twin")
                (run / "result.json").write_bytes(changed)
                ended = sit(experiment.at(root), Path(own) / "log.txt")
                found, answer = _answer(ended, run, twin, "result.json")
                if changed != data and answer == "made good" and ended.said.split(";")[1] != said.split(";")[1]:
                    found.append(f"says {ended.said!r}")
            part.case([f"result.json {what}: {failure}" for failure in found], answer)
    return part


def main() -> None:
    """Break files, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.files", description="Tear the files of a run.")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    given = parser.parse_args()
    write([of_a_killed_run, of_a_finished_run], given.json)


if __name__ == "__main__":
    main()
