"""The test split: read once for each of two points of a run, its last parameters and the best on dev.

It is read when training ends. With runtime.test=false it is left unread, and the same command without that word reads
it later from the saved parameters: stage one of a sweep tunes on dev alone, and the run that it chooses is not made
twice.
"""

from dataclasses import replace

from omegaconf import DictConfig

from zo_runner.jobs.assemble import Parts, assemble
from zo_runner.models import lora
from zo_runner.models.evaluator import Score
from zo_runner.records.result import TrainResult
from zo_runner.records.run_directory import RunDirectory
from zo_runner.training.budget import Budget, Ledger
from zo_runner.training.outcome import TrainingOutcome

# Where the last parameters of a fully trained model wait for a test that is read later. An adapter is kept anyway.
LAST = "last"


def keep(parts: Parts, directory: RunDirectory, outcome: TrainingOutcome, *, tested: bool) -> None:
    """Save the last parameters: an adapter always, a full model where they will be needed and lie nowhere else."""
    if parts.model is not parts.base.model:
        directory.replace("adapter", lambda folder: lora.save(parts.model, folder))
    elif not tested and outcome.status == "done" and not _same(outcome):
        directory.replace(LAST, lambda folder: lora.save(parts.model, folder))


def read_at_end(parts: Parts, directory: RunDirectory, ledger: Ledger, outcome: TrainingOutcome) -> dict[str, Score]:
    """Test scores of the parameters as they are, unless they diverged, and of the best on dev."""
    test: dict[str, Score] = {}
    if outcome.status == "done":
        test["last"] = _score(parts, ledger)
    if outcome.best is None:
        return test
    if "last" in test and _same(outcome):
        return {**test, "best": test["last"]}
    lora.restore(parts.model, directory.path / "best")
    return {**test, "best": _score(parts, ledger)}


def read_later(cfg: DictConfig, directory: RunDirectory, made: TrainResult) -> TrainResult:
    """Read test from the saved parameters of a finished run, and record the result with it."""
    parts = assemble(cfg)
    ledger = Ledger(Budget(queries=0))
    folders = {"last": LAST if parts.model is parts.base.model else "adapter", "best": "best"}
    if made.status != "done":
        del folders["last"]
    if made.score("dev", "best") is None:
        del folders["best"]
    elif "last" in folders and made.score("dev", "best", "step") == made.score("dev", "last", "step"):
        folders["last"] = "best"
    read: dict[str, dict[str, float]] = {}
    for folder in dict.fromkeys(folders.values()):
        lora.restore(parts.model, directory.path / folder)
        read[folder] = _score(parts, ledger).as_dict()
    result = replace(
        made,
        tested=True,
        metrics={"dev": made.metrics["dev"], "test": {point: read[folder] for point, folder in folders.items()}},
        evaluated=made.evaluated + ledger.evaluated,
        seconds={**made.seconds, "eval": made.seconds["eval"] + ledger.seconds["eval"]},
    )
    directory.finish(result)
    directory.remove(LAST)
    return result


def _same(outcome: TrainingOutcome) -> bool:
    return outcome.best is not None and outcome.last is not None and outcome.best.step == outcome.last.step


def _score(parts: Parts, ledger: Ledger) -> Score:
    with ledger.clock("eval"):
        score = parts.evaluator.score(parts.test)
        ledger.evaluated += len(parts.test)
    return score
