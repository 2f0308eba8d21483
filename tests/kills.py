"""A few kills of tests/faults: a run that is killed or finds a full disk goes on as if nothing had happened.

Run by test_kills.py, in a process of its own.
"""

import shutil
from errno import ENOSPC

import pytest

from tests.faults.disk import unreported
from tests.faults.experiments import NOISE, short
from tests.faults.sites import full, killing, watch
from tests.faults.trials import trial
from tests.faults.twins import differences

RUN = short("ar1zo", "budget.queries=16", "budget.eval_every=6", "task.num_train=8", "noise.repeats=2", *NOISE)

# A run is killed again and again: as it begins, trains, keeps what it has, and ends.
KILLS = (
    ("save", ".checkpoint"),
    ("write", "journal.jsonl"),
    ("rename", ".best"),
    ("write", ".result.json"),
    ("remove", "checkpoint"),
)


@pytest.fixture(scope="module")
def tried():
    with trial(RUN) as tried:
        yield tried


def kill_and_resume(tried, kills):
    tried.clear()
    for kind, start in kills:

        def reached(_, at, file, kind=kind, start=start):
            return at == kind and file.rpartition("/")[2].startswith(start)

        ended = tried.run(lambda reached=reached: watch(tried.root, killing(reached)))
        assert ended.killed, f"{kind} {start}: {ended}"
    assert tried.resume() == []


def test_a_run_killed_three_times_equals_one_that_never_was(tried):
    kill_and_resume(tried, KILLS[:2] + KILLS[3:4])


@pytest.mark.slow
def test_a_run_killed_at_every_turn_equals_one_that_never_was(tried):
    kill_and_resume(tried, KILLS)


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_line_and_the_same_command_goes_on(tried):
    tried.clear()
    ended = tried.run(lambda: watch(tried.root, full(50), freeing=False))
    assert unreported(ended, tried.root, ENOSPC) == []
    assert tried.resume() == []


def test_a_single_number_that_differs_is_found(tried, tmp_path):
    run = shutil.copytree(tried.twin, tmp_path / "run")
    assert differences(run, tried.twin) == []
    file = run / "adapter" / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    journal = run / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"lr": 0.007', '"lr": 0.008', 1))
    (run / ".best.left").mkdir()
    found = differences(run, tried.twin)
    assert [words.split(":")[0] for words in found[:2]] == ["journal.jsonl row 1", "adapter/adapter_model.safetensors"]
    assert found[2:] == [".best.left should not be there"]
