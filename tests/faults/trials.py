"""An experiment run twice: once disturbed, once not. The results must be equal."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.experiments import Experiment
from tests.faults.forked import Ended, ForkedCommand
from tests.faults.twins import differences
from zo_runner.records.run_directory import find_runs

Prepare = Callable[[], None]


def only_run(root: Path) -> Path:
    """The one finished run below `root`."""
    (run,) = find_runs(root)
    return run


class Trial:
    """A folder with an undisturbed twin in `twin` and a disturbed run in `run`.

    Args:
        experiment: of both.
        folder: an empty one.
        seed: of both.
        prepare_twin: called in the process of the twin before its command.

    Raises:
        RuntimeError: the twin fails.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, seed: int = 0, prepare_twin: Callable[[Path], None] | None = None
    ) -> None:
        self.name, self.folder, self.root, self.log = experiment.name, folder, folder / "run", folder / "log.txt"
        self.words = experiment.at(self.root, seed)
        root = folder / "twin"
        prepare = None if prepare_twin is None else lambda: prepare_twin(root)
        self.ended = ForkedCommand(experiment.at(root, seed), self.log, prepare).wait()
        if self.ended.code:
            raise RuntimeError(f"{experiment.name} undisturbed {self.ended}")
        self.twin = only_run(root)

    def start(self, prepare: Prepare | None = None) -> ForkedCommand:
        """Start the disturbed run, or go on with it."""
        return ForkedCommand(self.words, self.log, prepare)

    def run(self, prepare: Prepare | None = None) -> Ended:
        """Start it and wait for its end."""
        return self.start(prepare).wait()

    def resume(self) -> list[str]:
        """Let it finish undisturbed; the differences from its twin."""
        ended = self.run()
        if ended.code:
            return [f"{self.name}: the resume {ended}"]
        return [f"{self.name}: {found}" for found in differences(only_run(self.root), self.twin)]

    def clear(self) -> None:
        """Remove the disturbed run."""
        shutil.rmtree(self.root, ignore_errors=True)

    def has_steps(self, count: int) -> bool:
        """True once the journal of the disturbed run has so many steps."""
        return any(file.read_bytes().count(b"\n") >= count for file in self.root.glob("*/*/*/*/journal.jsonl"))


@contextmanager
def trial(experiment: Experiment, seed: int = 0, prepare_twin: Callable[[Path], None] | None = None) -> Iterator[Trial]:
    """A trial in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="zo-faults-") as folder:
        yield Trial(experiment, Path(folder), seed, prepare_twin)
