"""zo-run: turn a command line into one job and its exit code. Torch is imported when a run starts, not before."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zo_runner.config import credentials, validation
from zo_runner.config.composition_errors import in_composition, one_line
from zo_runner.config.credentials import redacted
from zo_runner.config.schema import HOME, PACKAGE
from zo_runner.errors import Fault, UserError, invalid
from zo_runner.jobs import table
from zo_runner.jobs.console import complain, quiet, say, trace
from zo_runner.jobs.dispatch import carry_out
from zo_runner.records.result import RunResult, TrainResult
from zo_runner.reporting.summary_line import closing_line
from zo_runner.training.interrupts import Terminated, raise_on_sigterm

INTERRUPTED, TERMINATED = 130, 143

# More digits than Python takes for a number, which Hydra does not expect.
_ENDLESS = re.compile(r"\d{4300}")

# The exit code that the jobs of this process have earned so far.
_exit_code = 0


class TableAtEnd(Callback):
    """Writes and prints the table when the last job of a multirun has ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather the notes of the jobs, which may have run in other processes."""
        folder = Path(config.hydra.sweep.dir)
        notes, broken = table.read_notes(folder / "jobs.jsonl")
        failed = [note for note in notes if note["error"] is not None]
        for sentence in broken:
            complain(sentence)
        runs = dict.fromkeys(note["run"] for note in notes if note["run"] is not None)
        if runs:
            table.write(map(Path, runs), folder)
        if failed:
            complain(f"{len(failed)} of {len(notes)} jobs failed:")
        for note in failed:
            complain(f"  {' '.join(note['overrides'])}: {note['error']}")
        if broken or failed:
            _fail()


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
        return result.objective if isinstance(result, TrainResult) else None
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


def _run(cfg: DictConfig, overrides: list[str]) -> tuple[Path | None, RunResult | None]:
    if cfg.job == "report":
        _report(cfg, overrides)
        return None, None
    if cfg.sweep.name is not None:
        raise UserError(f"A sweep needs -m: zo-run -m +sweeps={cfg.sweep.name}.")
    if cfg.job == "table":
        validation.check(cfg)
        if not table.rebuild(cfg, overrides):
            _fail()
        return None, None
    if cfg.job == "replay":
        _replay(cfg)
        return None, None
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
        complain("interrupted; run the same command again to continue")
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
    except Exception as error:  # Hydra's composer lets errors of any type through
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
    """The text of --help: help.txt and the options of every group, which Hydra takes seconds to list."""
    folders = sorted([*(HOME / "conf").iterdir(), HOME / "sweeps"], key=lambda folder: folder.name)
    options = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
    groups = "\n".join(f"{group}: {', '.join(names)}" for group, names in options.items() if names)
    return (PACKAGE / "help.txt").read_text(encoding="utf-8").replace("$GROUPS", groups)


def _fail() -> None:
    global _exit_code
    _exit_code = 1


if __name__ == "__main__":
    main()
