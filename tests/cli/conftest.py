"""A run that was cut off."""

import shutil

import pytest

from tests.cli.cutting import COMMAND, left, watched
from tests.cli.helpers import read_jsonl, the_run, zo_run

MEZO = (*COMMAND, "method=mezo")


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """A root with a run of MeZO that was killed after its ninth step, one after a checkpoint; and what it came to."""
    root, moments = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("moments")
    with pytest.MonkeyPatch.context() as patch:
        watched(patch, root, moments)
        assert zo_run(*MEZO, f"runtime.root={root}").code == 0
    for moment in moments.iterdir():
        journal = the_run(moment) / "journal.jsonl"
        if journal.exists() and len(read_jsonl(journal)) == 9:
            return moment, left(the_run(root))
    raise AssertionError


@pytest.fixture
def cut_off(killed, tmp_path):
    """The command of that run, its folder, and what it would have left."""
    root = shutil.copytree(killed[0], tmp_path / "runs")
    return (*MEZO, f"runtime.root={root}"), the_run(root), killed[1]
