"""The installed script, as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.cli.helpers import SMALL, read_json, runs_below

SCRIPT = Path(sys.executable).parent / "zo-run"


def call(*words, folder):
    return subprocess.run([SCRIPT, *words], cwd=folder, capture_output=True, text=True, timeout=300)


def test_help_is_in_our_own_words(tmp_path):
    done = call("--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("zo-run: zeroth-order fine-tuning of causal language models through LoRA")
    assert "zo-run -m method=lora_zo,ar1zo rank=4,64 seed=0,1,2" in done.stdout
    for group in ("model", "task", "method", "adapter", "budget", "noise", "tracker"):
        assert f"\n{group}: " in done.stdout
    assert "Powered by Hydra" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_bad_input_ends_the_process_with_1_and_one_line(tmp_path):
    done = call("rank=0", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zo-run: error: Invalid rank: 0. Must be an integer >= 1.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["-m", "rank=0,-1"]], ids=" ".join)
def test_nothing_heavy_is_imported_before_it_is_needed(words, tmp_path):
    probe = """
import sys
from zo_runner.cli import main
try:
    main()
except SystemExit:
    print("imported:", *sorted({"torch", "transformers", "peft", "wandb", "datasets"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1] == "imported:", done.stderr


def test_an_interrupt_from_outside_gives_130_and_leaves_the_status(tmp_path):
    command = [SCRIPT, *SMALL, "budget.queries=1000000", "budget.eval_every=1000000", f"runtime.root={tmp_path}"]
    # A shell's background job ignores SIGINT, and its children inherit that: the run under test must not.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=os.environ, preexec_fn=listening
    ) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.rglob("journal.jsonl")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert (out, err) == ("", "zo-run: interrupted; the same command starts it again\n")
    (run,) = runs_below(tmp_path)
    assert read_json(run / "result.json")["status"] == "interrupted"
