"""Files of a run that are torn, changed or missing when the same command comes again.

The command must either finish to the numbers of an undisturbed run, or refuse in one line that names the file. It must
never finish to other numbers.
"""

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.experiments import LR, NOISE, short
from tests.faults.forked import Ended
from tests.faults.report import Part
from tests.faults.trials import Trial, trial
from tests.faults.twins import differences

EXPERIMENTS = (
    short("ar1zo", "budget.queries=40", "method.order=shuffled", *NOISE),
    short("zo_adam", "budget.queries=40", "model=pocket_qwen3", *LR),
)

# Files with a checksum, besides the result. No number is computed from the others.
GUARDED = ("checkpoint.safetensors", "journal.jsonl")

# Steps after which the run is killed: past its second checkpoint.
STEPS = 12

# Bytes that a cut file begins with, and changed bytes, by description.
Contents = dict[str, bytes]


def functions(quick: bool) -> list[Callable[[], list[Part]]]:
    """Files of a killed run, and of a finished one."""
    return [partial(files_of_a_killed_run, 9 if quick else 1), files_of_a_finished_run]


def cuts(data: bytes) -> Contents:
    """A file cut at both ends, around the ends of its lines, and in the header of safetensors."""
    size = len(data)
    at = {0, 1, 4, 7, 8, 9, size // 4, size // 2, 3 * size // 4, size - 2, size - 1}
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")][-4:]
    at |= {end + shift for end in ends for shift in (-2, -1, 0, 1, 9)}
    header = int.from_bytes(data[:8], "little")
    if header < size:
        at |= {8 + header + shift for shift in (-1, 0, 1)}
    return {f"cut to {cut} of {size}": data[:cut] for cut in sorted(at) if 0 <= cut < size}


def changes(data: bytes) -> Contents:
    """A file with flipped bits, foreign bytes, and other lines and numbers in perfect JSON."""
    spots = sorted({round(share * (len(data) - 1)) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)})
    found = {f"byte {i} flipped": data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in spots}
    found["foreign bytes at the end"] = data + b"\x00\xff{]\n"
    lines = data.splitlines(keepends=True)
    if len(lines) > 3 and lines[1].startswith(b"{"):
        found["a line twice"] = b"".join([*lines[:3], *lines[2:]])
        found["a line gone"] = b"".join([*lines[:1], *lines[2:]])
        found["two lines exchanged"] = b"".join([lines[0], lines[2], lines[1], *lines[3:]])
        for number in (0, len(lines) - 2, len(lines) - 1):
            other = [*lines[:number], _renumbered(lines[number]), *lines[number + 1 :]]
            found[f"another number in line {number + 1}"] = b"".join(other)
    elif data.startswith(b"{"):
        found["another number"] = data.replace(b'"queries": ', b'"queries": 1', 1)
    return found


def _renumbered(line: bytes) -> bytes:
    """A line of JSON with another float."""
    row = json.loads(line)
    key = next(key for key in ("slopes", "dev/loss", "train/loss", "lr") if key in row)
    row[key] = [1.5] if key == "slopes" else 1.5
    return json.dumps(row).encode() + b"\n"


def files_of_a_killed_run(stride: int) -> list[Part]:
    """Torn, changed and missing files of a run that was killed in the middle; every n-th case of each file."""
    torn, changed, missing = parts = [Part("torn files"), Part("files tampered with"), Part("missing files")]
    for experiment in EXPERIMENTS:
        with trial(experiment) as tried:
            ended = tried.start().wait(send=signal.SIGKILL, when=lambda: tried.has_steps(STEPS))
            if not ended.killed:
                raise RuntimeError(f"{experiment.name} before it could be killed {ended}")
            begun = tried.root.rename(tried.folder / "begun")
            (run,) = begun.glob("*/*/*/*")
            for file in sorted(path for path in run.iterdir() if path.is_file() and not path.name.startswith(".")):
                data = file.read_bytes()
                for what, content in list(cuts(data).items())[::stride]:
                    _give_again(torn, tried, file, what, content)
                for what, content in list(changes(data).items())[::stride] if file.name in GUARDED else ():
                    _give_again(changed, tried, file, what, content)
                _give_again(missing, tried, file, "missing", None)
    return parts


def _give_again(part: Part, tried: Trial, file: Path, what: str, content: bytes | None) -> Ended:
    """Copy a run with other content in one file, and give its command again."""
    tried.clear()
    root = tried.folder / file.relative_to(tried.folder).parts[0]
    shutil.copytree(root, tried.root)
    copy = tried.root / file.relative_to(root)
    copy.unlink()
    if content is not None:
        copy.write_bytes(content)
    ended = tried.run()
    if ended.code == 0:
        found, answer = differences(copy.parent, tried.twin), "made good"
    else:
        found, answer = [] if ended.reported and file.name in ended.said else [str(ended)], "refused"
    part.case([f"{tried.name}, {file.name} {what}: {failure}" for failure in found], f"{file.name} {answer}")
    return ended


def files_of_a_finished_run() -> list[Part]:
    """A torn or changed result of a finished run: it is never shown as the result."""
    part = Part("a finished run's result")
    with trial(EXPERIMENTS[0]) as tried:
        file = tried.twin / "result.json"
        data = file.read_bytes()
        for what, content in (cuts(data) | changes(data)).items():
            ended = _give_again(part, tried, file, what, content)
            if ended.code == 0 and content != data and ended.said.split(";")[1] != tried.ended.said.split(";")[1]:
                part.fail([f"result.json {what}: {ended}"])
    return [part]
