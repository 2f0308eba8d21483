"""`+sweeps=NAME`: compose the plan of a sweep, carry it out through Hydra's launcher, write its outputs. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from zo_runner.config import validation
from zo_runner.config.overrides import Raw
from zo_runner.errors import Fault, UserError
from zo_runner.jobs.console import complain, quiet, say, trace
from zo_runner.jobs.dispatch import carry_out
from zo_runner.jobs.sweeps import outputs
from zo_runner.jobs.sweeps.dry_run import outline
from zo_runner.jobs.sweeps.plan import plan
from zo_runner.jobs.sweeps.runs import PlannedRun, SweepRuns
from zo_runner.records.locks import Busy
from zo_runner.reporting.summary_line import closing_line

# Keys of the command line that say what the sweep is, and not what a run is.
_OWN = ("+sweeps", "scale", "job")

_BUSY = "busy"


def sweep(sweeper: BasicSweeper, arguments: list[str]) -> None:
    """Carry out `+sweeps=NAME` of the command line, through the launcher that is configured.

    Raises:
        UserError: a bad sweep, before its first run; or, at the end, that runs failed or a table was refused.
    """
    cfg = sweeper.config
    assert cfg is not None
    runs = sweep_runs(cfg, arguments)
    if cfg.sweep.dry_run:
        say(outline(runs, Path(cfg.runtime.root)))
        return
    folder = runs.folder(cfg)
    with open_dict(cfg):  # the launcher and its workers write what they must here
        cfg.hydra.sweep.dir = str(folder)
        cfg.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
    failed = [] if cfg.job == "report" else runs.run(lambda words: _launch(sweeper, words))
    conclude(runs, cfg, failed)


def conclude(runs: SweepRuns, cfg: DictConfig, failed: Sequence[PlannedRun]) -> None:
    """Write what the sweep ends in, and say what is wrong with it.

    Raises:
        UserError: runs failed, or a table was refused.
    """
    folder = runs.folder(cfg)
    text, refused = outputs.write(runs, cfg, folder)
    say(f"{text}\n{folder}")
    for sentence in refused:
        complain(sentence)
    for job in failed:
        result = job.result()
        error = result and result.error
        complain(f"failed: {job.row.label} {job.candidate or ''} seed={job.seed}: {error or 'no result'}")
    if failed or refused:
        raise UserError(f"{len(failed)} runs failed and {len(refused)} tables were refused.")


def sweep_runs(cfg: DictConfig, words: Sequence[str]) -> SweepRuns:
    """The runs of a composed sweep and the words that it was composed from.

    Raises:
        UserError: a bad sweep.
    """
    outputs.check(cfg.sweep)
    validation.check_name("sweep.name", cfg.sweep.name)
    validation.check_name("scale", cfg.scale)
    given: dict[str, list[Any]] = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element()
        if key in _OWN or key.startswith("sweep."):
            continue
        if override.is_sweep_override():
            given[key] = [Raw(text) for text in override.sweep_string_iterator()]
        else:
            given[key] = [Raw(override.get_value_element_as_str())]
    scales = OmegaConf.to_container(cfg.sweep.scales, resolve=True)
    assert isinstance(scales, dict)
    return SweepRuns(plan({str(name): data for name, data in scales.items()}, cfg.scale, given), cfg.sweep.select)


def run_job(cfg: DictConfig) -> str | None:
    """One run of a sweep, in whatever process the launcher chose. A failure is told, and the rest go on."""
    quiet()
    try:
        path, result, cached = carry_out(cfg, (), wait=False)
        say(closing_line(result, path, cached=cached))
    except Busy:
        return _BUSY
    except (UserError, Fault) as error:
        complain(f"error: {error}")
    except Exception:  # a bug or a fault of one run must not take the others with it
        trace()
    return None


def _launch(sweeper: BasicSweeper, words: Sequence[Sequence[str]]) -> list[bool]:
    assert sweeper.launcher is not None
    returns = sweeper.launcher.launch(words, initial_job_idx=sweeper.batch_index)
    sweeper.batch_index += len(words)
    return [each.return_value == _BUSY for each in returns]
