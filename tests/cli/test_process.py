"""The installed script, as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.cli.helpers import SMALL, at_once, read_json, runs_below, zo_run
from zo_runner import cli

SCRIPT = Path(sys.executable).parent / "zo-run"


def call(*words, folder):
    return subprocess.run([SCRIPT, *words], cwd=folder, capture_output=True, text=True)


def test_help_is_in_our_own_words(tmp_path):
    done = call("--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("zo-run: zeroth-order fine-tuning of causal language models through LoRA")
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
PROBE = """
import sys
from zo_runner.cli import main
for words in {commands}:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit:
        print("imported:", *sorted(set({watched}) & set(sys.modules)))
"""


def test_nothing_heavy_is_imported_before_it_is_needed_and_help_composes_nothing(tmp_path):
    """Not for help, a configuration, jobs that are refused, or a run that was made."""
    made = [*SMALL, "budget.queries=2", f"runtime.root={tmp_path}"]
    assert zo_run(*made).code == 0
    commands = [["--help"], ["--cfg", "job"], ["-m", "rank=0,-1"], made]
    command = [sys.executable, "-c", PROBE.format(commands=commands, watched=[*HEAVY, "hydra_plugins.zo_run_sweeps"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert told == [[], *[["hydra_plugins.zo_run_sweeps"]] * 3]
    assert "cached, done" in done.stdout


def test_the_same_command_twice_at_once_runs_once_and_the_second_waits(tmp_path):
    words = (*SMALL, "runtime.threads=1", f"runtime.root={tmp_path}")
    ends = at_once(words, words)
    assert [ended.code for ended in ends] == [0, 0], ends
    assert sorted("cached, done" in ended.out for ended in ends) == [False, True]
    assert len(runs_below(tmp_path)) == 1


def test_an_interrupt_from_outside_gives_130_and_leaves_the_status(tmp_path):
    command = [SCRIPT, *SMALL, "budget.queries=1000000", "budget.eval_every=1000000", f"runtime.root={tmp_path}"]
    # A shell's background job ignores SIGINT, and its children inherit that: the run under test must not.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=os.environ, preexec_fn=listening
    ) as process:
        while not list(tmp_path.rglob("journal.jsonl")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert (out, err) == ("", "zo-run: interrupted; run the same command again to continue\n")
    (run,) = runs_below(tmp_path)
    assert read_json(run / "result.json")["status"] == "interrupted"
