"""The runs of a named sweep: stage one, the choice, stage two. No torch.

Every run is found by its identity: what is finished is not run again, what another process is at is waited for, and
what failed is recorded while the rest go on. So a sweep can be stopped and started, on one machine or on several that
share a folder, and ends in the same table.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf

from zo_runner.config import validation
from zo_runner.config.identity import identify, run_folder, run_id
from zo_runner.config.overrides import word
from zo_runner.config.schema import NODES
from zo_runner.errors import Fault
from zo_runner.jobs.sweeps.plan import Plan, PlannedRow
from zo_runner.jobs.sweeps.selection import choose
from zo_runner.records.locks import is_held, lock_file
from zo_runner.records.result import RunResult, TrainResult, read_result

# Seconds between looks at runs that other processes are at.
PATIENCE = 1.0

_UNKNOWN = object()

Launch = Callable[[Sequence[Sequence[str]]], Sequence[bool]]


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan.

    Attributes:
        row: the row that it belongs to.
        candidate: what is tried for the row, or was chosen.
        seed: of all its random streams.
        words: its overrides.
        cfg: what they compose to.
        known: its identity.
    """

    row: PlannedRow
    candidate: dict[str, Any]
    seed: int
    words: list[str]
    cfg: DictConfig
    known: dict[str, Any]

    @cached_property
    def run_id(self) -> str:
        """Ten digits of its identity."""
        return run_id(self.known)

    @cached_property
    def path(self) -> Path:
        """Its folder."""
        return run_folder(self.cfg, self.known)

    def result(self) -> RunResult | None:
        """Its result, of any status; None where there is none or a broken one."""
        with suppress(Fault):
            return read_result(self.path / "result.json")
        return None

    def trained(self) -> TrainResult | None:
        """Its result, if training left one."""
        result = self.result()
        return result if isinstance(result, TrainResult) else None

    def finished(self, *, tested: bool) -> bool:
        """True if nothing is left to do; with `tested`, test must have been read."""
        result = self.result()
        return result is not None and result.is_complete(tested=tested)

    def placeholder_result(self, status: str = "missing") -> TrainResult:
        """The result that stands in a table for a run without one."""
        return TrainResult(
            job="train",
            run_id=self.run_id,
            model=self.cfg.model.name,
            task=self.cfg.task.name,
            seed=self.seed,
            identity=self.known,
            status=status,
            method=self.cfg.method.name,
            rank=self.rank,
        )

    @property
    def rank(self) -> int | None:
        """Rank of its adapter; None for a method that trains the full model."""
        return self.cfg.rank if self.cfg.method.trains == "adapter" else None


@dataclass
class SweepRuns:
    """A plan, and the runs that carry it out.

    Args:
        plan: what to run.
        select: which dev score chooses, "best" or "last".
    """

    plan: Plan
    select: str
    _bases: dict[str, DictConfig] = field(default_factory=dict, repr=False)
    _rows: dict[str, DictConfig | None] = field(default_factory=dict, repr=False)
    _jobs: dict[tuple[str, ...], PlannedRun] = field(default_factory=dict, repr=False)

    @cached_property
    def candidates(self) -> list[list[list[PlannedRun]]]:
        """For each row, for each of its candidates, one job per tuning seed."""
        return [
            [[self.job(row, candidate, seed) for seed in self.plan.tune_seeds] for candidate in row.candidates]
            for row in self.plan.rows
        ]

    @property
    def trials(self) -> list[PlannedRun]:
        """Stage one: the candidates of every row that has several."""
        return [job for row in self.candidates if len(row) > 1 for jobs in row for job in jobs]

    @property
    def finals(self) -> list[PlannedRun]:
        """Stage two: one job per seed for each row whose configuration is known."""
        return [job for i in range(len(self.plan.rows)) for job in self.seeds_of(i)]

    def chosen(self, i: int) -> dict[str, Any] | None:
        """The configuration of row `i` for stage two; None while it is not known, or where all diverged."""
        tried = self.candidates[i]
        if len(tried) == 1:
            return tried[0][0].candidate
        if not all(job.finished(tested=False) for jobs in tried for job in jobs):
            return None
        best = choose([[result for job in jobs if (result := job.trained())] for jobs in tried], self.select)
        return None if best is None else tried[best][0].candidate

    def seeds_of(self, i: int) -> list[PlannedRun]:
        """The jobs of stage two of row `i`; none while its configuration is not known."""
        candidate = self.chosen(i)
        return [] if candidate is None else [self.job(self.plan.rows[i], candidate, seed) for seed in self.plan.seeds]

    @property
    def digest(self) -> str:
        """Six digits that tell this plan from another of the same name."""
        ids = sorted(job.run_id for row in self.candidates for jobs in row for job in jobs)
        return hashlib.sha256(repr((ids, self.plan.seeds, self.select)).encode()).hexdigest()[:6]

    def folder(self, cfg: DictConfig) -> Path:
        """Folder of the sweep's plan, tables, figures and page."""
        return Path(cfg.runtime.root) / "sweeps" / f"{cfg.sweep.name}-{cfg.scale}-{self.digest}"

    def run(self, launch: Launch) -> list[PlannedRun]:
        """Carry out both stages and return the jobs that failed. Finished runs are not run again.

        Args:
            launch: runs jobs, given their overrides; says of each whether another process was at it.
        """
        failed = self._complete(self.trials, launch, tested=False)
        return failed + self._complete(self.finals, launch, tested=True)

    def _complete(self, jobs: Iterable[PlannedRun], launch: Launch, *, tested: bool) -> list[PlannedRun]:
        unique = {job.run_id: job for job in jobs}
        failed: dict[str, PlannedRun] = {}
        while True:
            left = [j for j in unique.values() if j.run_id not in failed and not j.finished(tested=tested)]
            free = [job for job in left if not is_held(lock_file(Path(job.cfg.runtime.root), job.run_id))]
            if not left:
                return list(failed.values())
            if not free:
                time.sleep(PATIENCE)
                continue
            busy = launch([[*job.words, f"runtime.test={str(tested).lower()}"] for job in free])
            for job, elsewhere in zip(free, busy, strict=True):
                if not elsewhere and not job.finished(tested=tested):
                    failed[job.run_id] = job

    def job(self, row: PlannedRow, candidate: dict[str, Any], seed: int) -> PlannedRun:
        """One run of the plan. Its configuration is checked, so that a bad plan ends before its first run."""
        words = self.plan.words(row, candidate, seed)
        if tuple(words) not in self._jobs:
            cfg = self._composed(row, candidate, seed)
            validation.check(cfg)
            self._jobs[tuple(words)] = PlannedRun(row, candidate, seed, words, cfg, identify(cfg))
        return self._jobs[tuple(words)]

    def _composed(self, row: PlannedRow, candidate: dict[str, Any], seed: int) -> DictConfig:
        """The configuration that Hydra composes from the words of one run.

        A composition takes a third of a second, and a plan has hundreds of runs: each choice of a file is composed
        once, alone, and its node is put in place; values are set, those of a row once.
        """
        key = repr(row.words)
        if key not in self._rows:
            self._rows[key] = self._changed(self._base(""), self.plan.words(row, {}, seed))
        base, tried, cfg = self._rows[key], {**candidate, "seed": seed}, None
        if base is not None and NODES.isdisjoint(tried):  # a node that is tried would lose the row's keys in it
            cfg = self._changed(base, [word(k, v) for k, v in tried.items()])
        return compose("run", self.plan.words(row, candidate, seed)) if cfg is None else cfg

    def _changed(self, cfg: DictConfig, words: Sequence[str]) -> DictConfig | None:
        """A changed copy. None where a word is no plain key=value of a known key, but Hydra's own business."""
        overrides, cfg = OverridesParser.create().parse_overrides(list(words)), cfg.copy()
        for override in sorted(overrides, key=lambda each: each.key_or_group not in NODES):  # values win, wherever
            key = override.key_or_group
            if override.type != OverrideType.CHANGE or OmegaConf.select(cfg, key, default=_UNKNOWN) is _UNKNOWN:
                return None
            value = self._base(str(override.input_line))[key] if key in NODES else override.value()
            OmegaConf.update(cfg, key, value, merge=False)
        return cfg

    def _base(self, word: str) -> DictConfig:
        if word not in self._bases:
            self._bases[word] = compose("run", [word] if word else [])
        return self._bases[word]
