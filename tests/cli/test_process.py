"""The installed script, as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.cli.helpers import SMALL, read_json, runs_below, zo_run
from zo_runner import cli

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
    for file in (*cli.HOME.glob("conf/*/*.yaml"), *cli.HOME.glob("sweeps/*.yaml")):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{file.parent.name}: "))
        assert file.stem in line.split(": ")[1].split(", ")
    assert not list(tmp_path.iterdir())


def test_bad_input_ends_the_process_with_1_and_one_line(tmp_path):
    done = call("rank=0", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zo-run: error: Invalid rank: 0. Must be an integer >= 1.\n"
    assert not list(tmp_path.iterdir())


HEAVY = {"datasets", "matplotlib", "numpy", "pandas", "peft", "scipy", "torch", "transformers", "wandb"}


def imported(*words, folder, among):
    """Which of some modules a command has imported when it ends."""
    probe = f"""
import sys
from zo_runner.cli import main
try:
    main()
except SystemExit:
    print("imported:", *sorted({among} & set(sys.modules)))
"""
    command = [sys.executable, "-c", probe, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return done.stdout.splitlines()[-1].removeprefix("imported:").split()


@pytest.mark.parametrize("words", [["--cfg", "job"], ["-m", "rank=0,-1"]], ids=" ".join)
def test_nothing_heavy_is_imported_before_it_is_needed(words, tmp_path):
    assert imported(*words, folder=tmp_path, among=HEAVY) == []


def test_help_composes_nothing(tmp_path):
    assert imported("--help", folder=tmp_path, among={*HEAVY, "hydra_plugins.zo_run_sweeps"}) == []


def test_a_run_that_was_made_is_found_without_anything_heavy(tmp_path):
    tiny = (*SMALL, "budget.queries=2", f"runtime.root={tmp_path}")
    assert zo_run(*tiny).code == 0
    assert imported(*tiny, folder=tmp_path, among=HEAVY) == []


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
    assert (out, err) == ("", "zo-run: interrupted; run the same command again to continue\n")
    (run,) = runs_below(tmp_path)
    assert read_json(run / "result.json")["status"] == "interrupted"
