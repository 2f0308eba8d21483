"""The tests of kills.py, in a fresh process: a child may be forked only where torch has never used a second thread."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("mark", "passed"), [("not slow", "2 passed"), pytest.param("slow", "2 passed", marks=pytest.mark.slow)]
)
def test_the_kills_in_a_process_of_their_own(mark, passed):
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", mark, str(Path(__file__).with_name("kills.py")))
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed in done.stdout
