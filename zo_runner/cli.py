"""zo-run: compose a configuration, execute it, say in one line what came of it. No torch before it is needed."""

import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zo_runner.config import credentials, validation, yaml_files
from zo_runner.config.credentials import redacted
from zo_runner.config.schema import HOME, PACKAGE
from zo_runner.errors import Fault, UserError, invalid
from zo_runner.jobs.console import complain, quiet, say, trace
from zo_runner.jobs.dispatch import carry_out, closing_line
from zo_runner.records.run_directory import find_runs
from zo_runner.reporting.tables.aggregate import read
from zo_runner.training.interrupts import Terminated, raise_on_sigterm

INTERRUPTED, TERMINATED = 130, 143

# More digits than Python takes for a number, which Hydra does not expect.
_ENDLESS = re.compile(r"\d{4300}")

# What a job of a multirun notes when it ends.
_NOTE = {"overrides": list, "run": str | None, "error": str | None}

# The exit code that the jobs of this process have earned so far.
_exit_code = 0


class TableAtEnd(Callback):
    """Writes and prints the table when the last job of a multirun has ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather what the jobs noted; they may have run in other processes."""
        folder = Path(config.hydra.sweep.dir)
        jobs, broken = _noted(folder / "jobs.jsonl")
        for sentence in broken:
            complain(sentence)
            _fail()
        failed = [job for job in jobs if job["error"] is not None]
        runs = list(dict.fromkeys(job["run"] for job in jobs if job["run"] is not None))
        if runs:
            _write_table([Path(run) for run in runs], folder)
        if failed:
            complain(f"{len(failed)} of {len(jobs)} jobs failed:")
            for job in failed:
                complain(f"  {' '.join(job['overrides'])}: {job['error']}")
            _fail()


def _noted(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What the jobs of a multirun noted, and a sentence for each line that is none of theirs."""
    jobs, broken = [], []
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            job = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            job = {}
        if job is None:
            continue
        if isinstance(job, dict) and all(isinstance(job.get(key, 0), kind) for key, kind in _NOTE.items()):
            jobs.append(job)
        else:
            broken.append(f"{file}:{number} is no note of a job; what it said is left out.")
    return jobs, broken


@hydra.main(version_base="1.3", config_path=str(HOME / "conf"), config_name="run")
def _job(cfg: DictConfig) -> float | None:
    """One job: a single run, or one of a multirun, where a failure is noted and the rest go on."""
    quiet()  # a launcher's worker has not been through main()
    context = HydraConfig.get()
    # As they were typed: an interpolation in one of them may lead nowhere.
    overrides = list(map(str, OmegaConf.to_container(context.overrides.task, resolve=False) or ()))
    note: dict[str, Any] = {
        "job": context.job.num if context.mode == RunMode.MULTIRUN else 0,
        "overrides": overrides,
        "run": None,
        "error": None,
    }
    try:
        directory, result = _run(cfg, overrides)
        note["run"] = str(directory) if cfg.job == "train" else None  # what the table at the end compares
        return result.get("objective")
    except (UserError, Fault) as error:
        note["error"] = str(error)
    except (HydraException, OmegaConfBaseException) as error:  # a value that leads nowhere until it is read
        note["error"] = one_line(error)
    except Exception as error:  # a bug or a fault of one job must not take the others with it
        note["error"] = f"{type(error).__name__}: {error}"
        trace()
    finally:
        if context.mode == RunMode.MULTIRUN:
            with (Path(context.sweep.dir) / "jobs.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(redacted(json.dumps(note)) + "\n")
    complain(f"error: {note['error']}")
    _fail()
    return None


def _run(cfg: DictConfig, overrides: list[str]) -> tuple[Path | None, dict[str, Any]]:
    if cfg.job == "report":
        _report(cfg, overrides)
        return None, {}
    if cfg.sweep.name is not None:
        raise UserError(f"A sweep needs -m: zo-run -m +sweeps={cfg.sweep.name}.")
    if cfg.job == "table":
        validation.check(cfg)
        _rebuild_table(cfg, overrides)
        return None, {}
    if cfg.job == "replay":
        _replay(cfg)
        return None, {}
    chosen = {override.split("=")[0].lstrip("+~") for override in overrides}
    path, result, cached = carry_out(cfg, chosen, wait=True)
    say(closing_line(result, path, cached=cached))
    return path, result


def _replay(cfg: DictConfig) -> None:
    """`job=replay run=DIR step=N`: the parameters of a run after a step, from its journal."""
    validation.check(cfg)
    if cfg.run is None:
        raise UserError("job=replay needs a run: zo-run job=replay run=DIR step=N.")
    from zo_runner.jobs.replay import replay

    replayed = replay(
        Path(cfg.run),
        cfg.step,
        device=cfg.runtime.device,
        threads=cfg.runtime.threads,
        trust_remote_code=cfg.model.trust_remote_code,
    )
    if replayed.differs:
        complain(f"warning: the run began with {', '.join(replayed.differs)}: last bits can differ")
    say(str(replayed))


def _report(cfg: DictConfig, overrides: list[str]) -> None:
    """`job=report +sweeps=NAME`: tables, figures and page of a sweep from what has run so far."""
    if cfg.sweep.name is None:
        raise UserError("job=report needs a sweep: zo-run job=report +sweeps=NAME.")
    from zo_runner.jobs.sweeps.sweep import conclude, sweep_runs

    conclude(sweep_runs(cfg, overrides), cfg, ())


def _rebuild_table(cfg: DictConfig, overrides: list[str]) -> None:
    """`job=table`: every finished run below runtime.root that agrees with the overrides."""
    root = Path(cfg.runtime.root)
    chosen = [override.split("=")[0].lstrip("+") for override in overrides]
    keys = [key for key in chosen if key not in ("job", "tracker") and not key.startswith(("runtime.root", "tracker."))]
    groups = ("model", "task", "method", "adapter", "budget", "noise")
    keys = [f"{key}.name" if key in groups else key for key in keys]
    runs, unreadable = [], []
    for run in find_runs(root):
        try:
            if _agrees(yaml_files.read(run / "config.yaml"), cfg, keys):
                runs.append(run)
        except UserError as error:
            unreadable.append(f"{error} The run is left out.")
    for sentence in unreadable:
        complain(sentence)
        _fail()
    if not runs:
        raise UserError(
            f"No table: no run below {str(root)!r} agrees with the command. Run some first, or choose fewer keys."
        )
    if not _write_table(runs, root):
        _fail()


def _agrees(saved: dict[str, Any], cfg: DictConfig, keys: list[str]) -> bool:
    trained = saved.get("job") == "train"  # other jobs have nothing that a table compares
    return trained and all(read(saved, *key.split(".")) == OmegaConf.select(cfg, key) for key in keys)


def _write_table(runs: list[Path], folder: Path) -> bool:
    """Print and save the table of some runs. False if a part of it was refused."""
    from zo_runner.reporting.tables import tables

    results, unreadable = tables.gather(runs)
    text, refused = tables.write(results, folder)
    refused = unreadable + refused
    if text:
        say(f"\n{text}\n{folder / 'table.md'}  {folder / 'table.csv'}")
    for sentence in refused:
        complain(sentence)
    return not refused


def main() -> None:
    """The console script.

    Exit codes: 0 done, diverged or cached; 1 bad input or failure; 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    raise_on_sigterm()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the line is ours to write
    # Hydra's parser takes no overrides on both sides of a flag; a person adds -m wherever the cursor is.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    quiet()
    if {"-h", "--help"} & set(sys.argv):
        say(help_text())
        sys.exit(0)
    try:
        _check_words(sys.argv[1:])
        _job()
    except KeyboardInterrupt as signal:
        complain("interrupted; the same command goes on")
        sys.exit(TERMINATED if isinstance(signal, Terminated) else INTERRUPTED)
    except (UserError, Fault) as error:
        complain(f"error: {error}")
        _fail()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        complain(f"error: {one_line(error)}")
        _fail()
    except OSError as error:  # Hydra makes the folder of a multirun below runtime.root
        allowed = f"a folder that can be written to ({error.strerror or error})"
        complain(f"error: {invalid('runtime.root', error.filename, allowed)}")
        _fail()
    except (
        Exception
    ) as error:  # Hydra's composer lets errors of any type through, at words that it cannot make sense of
        if not in_composition(error):
            raise
        words = " ".join(sys.argv[1:])
        complain(f"error: Cannot compose {words!r}: {type(error).__name__}: {' '.join(str(error).split())}")
        _fail()
    sys.exit(_exit_code)


def _check_words(words: list[str]) -> None:
    """Refuse what must not be on a command line: other users of the machine see it, and meta.json keeps it."""
    for word in words:
        key = word.partition("=")[0] if "=" in word else "word"
        if credentials.typed(word):
            allowed = "in the environment, as WANDB_API_KEY or HF_TOKEN, or kept by `wandb login` or `hf auth login`"
            raise invalid(redacted(key), credentials.REMOVED, allowed)
        if _ENDLESS.search(word):
            raise invalid(key, f"a number of {len(word)} digits", "one that Python can read")
        if word.startswith("--e"):  # argparse takes any beginning of --experimental-rerun
            raise invalid("--experimental-rerun", word, "left out, since Hydra reads a pickle there")


def help_text() -> str:
    """What --help says: help.txt, and what there is in every group. Hydra's own takes seconds to list that."""
    folders = sorted([*(HOME / "conf").iterdir(), HOME / "sweeps"], key=lambda folder: folder.name)
    options = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
    groups = "\n".join(f"{group}: {', '.join(names)}" for group, names in options.items() if names)
    return (PACKAGE / "help.txt").read_text(encoding="utf-8").replace("$GROUPS", groups)


def in_composition(error: BaseException) -> bool:
    """Whether Hydra raised it while it composed: then it is about what was typed, whatever its type."""
    return "compose_config" in {frame.name for frame in traceback.extract_tb(error.__traceback__)}


def one_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's errors in the form of ours: key, value, what is allowed."""
    text = f"{error}\n{error.__cause__ or ''}"
    key = re.search(r"full_key: (\S+)", text)
    value = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text)
    if key and value:
        kinds = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
        return str(invalid(key[1], value[1], kinds.get(value[2], value[2])))
    option = re.search(r"Could not find '([\w/]+)/([^']*)'", text)
    available = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", text)
    if option and available:
        return str(invalid(option[1], option[2], "one of " + ", ".join(available[1].split())))
    unknown = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", text)
    if unknown:
        return f"Unknown key {unknown[1]!r}. zo-run --help lists the keys, zo-run --cfg job shows them all."
    if isinstance(error, OverrideParseException):
        return (
            f"Cannot read {error.override!r}. A value with spaces, braces or commas needs quotes of its own inside the "
            """shell's, as in 'task.template="{text} It was"'."""
        )
    return " ".join(str(error).split())


def _fail() -> None:
    global _exit_code
    _exit_code = 1


if __name__ == "__main__":
    main()
