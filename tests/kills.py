"""A run that is killed goes on as if it had not been: a few of the kills of `python -m tests.faults.kills`.

Run by test_kills.py, in a process of its own.
"""

import shutil
from errno import ENOSPC
from functools import partial

import pytest

from tests.faults.disk import faulty
from tests.faults.experiments import NOISE, short
from tests.faults.kills import only_run, resumed, undisturbed
from tests.faults.sites import full, killing_where, watch
from tests.faults.sittings import sit
from tests.faults.twins import differences

RUN = short("ar1zo", "budget.queries=16", "budget.eval_every=6", "task.num_train=8", "noise.repeats=2", *NOISE)

# Where the run is killed, again and again: as it begins, trains, keeps what it has, and ends.
KILLS = (
    ("save", ".checkpoint"),
    ("write", "journal.jsonl"),
    ("rename", ".best"),
    ("write", ".result.json"),
    ("remove", "checkpoint"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    undisturbed(RUN, folder)
    return folder


def test_a_run_killed_at_every_turn_equals_one_that_never_was(place):
    root = place / "run"
    for kind, file in KILLS:
        ended = sit(RUN.at(root), place / "log.txt", partial(watch, root, killing_where(kind, file)))
        assert ended.killed, f"{kind} {file}: {ended}"
    assert resumed(RUN, place, place / "twin") == []


def test_a_full_disk_ends_a_run_with_one_line_and_the_same_command_goes_on(place):
    root = place / "run"
    shutil.rmtree(root, ignore_errors=True)
    ended = sit(RUN.at(root), place / "log.txt", lambda: watch(root, full(50), frees=False))
    assert faulty(ended, root, ENOSPC) == []
    assert resumed(RUN, place, place / "twin") == []


def test_a_single_number_that_differs_is_found(place, tmp_path):
    twin = only_run(place / "twin")
    run = tmp_path / "run"
    shutil.copytree(twin, run)
    assert differences(run, twin) == []
    file = run / "adapter" / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    journal = run / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"lr": 0.007', '"lr": 0.008', 1))
    (run / ".best.left").mkdir()
    found = differences(run, twin)
    assert [words.split(":")[0] for words in found[:2]] == ["journal.jsonl row 1", "adapter/adapter_model.safetensors"]
    assert found[2:] == [".best.left should not be there"]
