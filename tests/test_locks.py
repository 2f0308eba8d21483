"""Locks: one holder at a time, freed by whatever ends the holder."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from zo_runner.errors import Fault, RunWarning
from zo_runner.records.locks import Busy, hold, is_held, lock_file

HOLDER = """
import sys, time
from pathlib import Path
from zo_runner.records.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def file(tmp_path):
    return lock_file(tmp_path, "0123456789")


@pytest.fixture
def holder(file):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_leaves_nothing_behind(file):
    with hold(file):
        assert file.exists()
    assert list(file.parent.iterdir()) == []


def test_a_lock_is_freed_when_its_block_raises(file):
    with pytest.raises(KeyError), hold(file):
        raise KeyError
    with hold(file):
        pass


def test_a_second_process_is_told_who_holds_it(file, holder):
    with pytest.raises(Busy, match=f"process {holder.pid} on "), hold(file):
        pass


def test_looking_tells_and_frees_nothing(file, holder):
    assert is_held(file)
    assert is_held(file)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_held(file)


def test_a_killed_holder_frees_it(file, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert file.exists()  # what a killed process leaves does not lock
    with hold(file):
        assert file.read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_that_does_not_exist_is_not_held(file):
    assert not is_held(file)


def test_of_many_at_once_each_gets_it_alone(file):
    inside, most, made = 0, 0, 0
    guard = threading.Lock()

    def take():
        nonlocal inside, most, made
        while True:
            try:
                with hold(file):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
                        made += 1
                return
            except Busy:
                continue

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, made) == (1, 8)


def test_what_is_no_file_is_refused_and_stays_as_it_is(file):
    file.mkdir()
    for use in (is_held, lambda file: hold(file).__enter__()):
        with pytest.raises(Fault, match=re.escape(str(file))):
            use(file)
    assert file.is_dir()


def test_a_file_system_without_locks_is_a_warning(file, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(RunWarning, match="no locks"), hold(file):
        assert file.read_text().startswith(f"process {os.getpid()} on ")
    assert not file.exists()
