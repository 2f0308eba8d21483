"""What was measured as Markdown: every number is a median over rounds, with the least and the most beside it."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.matrix import BATCH, DIRECTIONS, LENGTH_BATCH, RANK, Cell, Memory
from benchmarks.rounding import BATCH as ROUNDED
from benchmarks.rounding import EPS, Rounding
from benchmarks.settings import ALPHA, LONGEST, SHORTEST
from benchmarks.start import CACHED, HELP, NEW, Start
from benchmarks.steps import DEFAULT
from zo_runner.records.provenance import environment
from zo_runner.reporting.tables.formats import markdown

# The model that the bars were set for.
BARRED = "smollm2-135m"

# Seconds that a process may take.
STARTS = {HELP: 1.0, CACHED: 2.0, NEW: 5.0}

STEPS = {
    "plain": "(a) plain",
    "floor": "(b) floor",
    "sequential": "(c) sequential",
    "batched": "(d) batched",
    "auto": "auto",
    "all atoms": "all atoms",
}

HEAD = """\
# Benchmarks

Made by `make bench`; the raw seconds of every round are in [bench.json](bench.json).

{facts}

Every number is the median over rounds, with the least and the most in brackets. A round takes each variant once, over
the same batches, and begins with another one; a ratio is taken within a round, so that drift hits both sides alike. The
variants of a row see the same losses, to {gap:.0e} nats at most in this run, or the run stops.

- **(a) plain**: the loop of the literature (MeZO over LoRA): one sequence per option, padded to a multiple of 8, logits
  at every position, log-softmax over the vocabulary, +ε and −ε one after the other, all parameters of the adapter.
- **(b) floor**: two bare forwards of the frozen model without an adapter, logits only where an option is read, tensors
  made before the clock starts; of the ways to compute a batch of mixed lengths the fastest, which is named.
- **(c) sequential**, **(d) batched**: our step (AR1-ZO) as the trainer takes it, with the building of the batch; +ε and
  −ε one after the other, or in one forward. **auto** is what a run does by itself, and what is called ours.
- **all atoms**: our step, perturbing all that (a) does, evaluated as a run does by itself.

Adapters are on the query and value projections, alpha {alpha}; models are in float32 on the CPU. Prompts have mixed
lengths: film reviews of 7 to 47 tokens for the real model, running text of {shortest} to {longest} tokens for the
pocket models."""


def facts() -> dict[str, Any]:
    """Where and with what is measured, asked before the first measurement; threads are still to be told, by model."""
    load = round(os.getloadavg()[0], 2)
    return {**environment(), "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "load_before": load}, "threads": {}}


def text(
    cells: Sequence[Cell],
    memory: Sequence[Memory],
    rounded: Sequence[Rounding],
    started: Sequence[Start],
    known: dict[str, Any],
) -> str:
    """The page."""
    gap = max((cell.gap for cell in cells), default=0.0)
    lengths = {"shortest": SHORTEST, "longest": LONGEST}
    head = HEAD.format(facts=_told(known), gap=gap, alpha=ALPHA, **lengths)
    parts = [head, "## Bars", _bars(cells, memory)]
    for title, table in (
        ("Seconds of a step", "steps"),
        (f"Growth with the batch, rank {RANK}", "batch"),
        (f"Growth with the length, batch {LENGTH_BATCH}, rank {RANK}", "length"),
    ):
        parts += [f"## {title}", _steps([cell for cell in cells if cell.table == table])]
    parts += [
        "## Growth with the rank",
        "Seconds of a step by rank, and against that of the first.",
        _against([cell for cell in cells if cell.table == "rank"], "batch"),
        f"## Growth with the number of directions, batch 1, rank {RANK}",
        "Seconds of a probe, two queries along each direction; and of one bare forward of the frozen model over as many"
        " tokens, which no way of reading so many points together can beat.",
        _against([cell for cell in cells if cell.table == "directions"], "directions"),
        f"## A probe of {DIRECTIONS} directions by the length of the example, batch 1, rank {RANK}",
        _against([cell for cell in cells if cell.table == "probe"], "length"),
        "## Rounding of a slope",
        f"Root mean square of AR1-ZO's slopes at ε = {EPS:g} and batch {ROUNDED}, and of their distance from those of "
        "float64, by the way in which the points of a step are evaluated. No atom is at 0.",
        _roundings(rounded),
        "## Peak memory",
        "MiB of the tensors that exist at once; (model + step) / (model + forward).",
        _memory(memory),
        "## Evaluation",
        "Examples per second: one sequence at a time with full logits, against batches of 16.",
        _evaluation([cell for cell in cells if cell.table == "evaluation"]),
        "## Start",
        "Seconds of a process, one thread, files in the disk's cache. A line of imports has those above it in it.",
        _starts(started),
    ]
    return "\n\n".join(parts) + "\n"


def ratios(cell: Cell, over: str, under: str) -> list[float]:
    """Seconds of one variant by those of another, in each round."""
    return [one / other for one, other in zip(cell.seconds[over], cell.seconds[under], strict=True)]


def _bars(cells: Sequence[Cell], memory: Sequence[Memory]) -> str:
    """Every target, and what each model measured. A verdict is given where the target was set."""
    rows = []
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [cell for cell in cells if cell.model == model]
        for what, sign, target, values in _measured(mine, [row for row in memory if row.model == model]):
            median = statistics.median(values) if values else None
            met = "-"
            if model == BARRED and median is not None:
                met = "yes" if (median >= target if sign == "≥" else median <= target) else "no"
            told = _spread(values, ".3f") if values else "not measured"
            rows.append((what, f"{sign} {target:g}", model, told, met))
    return _table(("bar", "target", "model", "measured", "met"), rows)


def _measured(cells: Sequence[Cell], memory: Sequence[Memory]) -> Iterable[tuple[str, str, float, list[float]]]:
    def of(over: str, under: str, table: str, batch: int, directions: int | None = None) -> list[float]:
        where = (table, batch, directions)
        rank = None if table == "rank" else RANK
        found = [c for c in cells if (c.table, c.batch, c.directions) == where and c.rank == rank]
        return ratios(found[0], over, under) if found and {over, under} <= found[0].seconds.keys() else []

    yield f"(a) / ours, batch {BATCH}, rank {RANK}", "≥", 4.0, of("plain", DEFAULT, "steps", BATCH)
    yield f"ours / (b), batch {BATCH}, rank {RANK}", "≤", 1.05, of(DEFAULT, "floor", "steps", BATCH)
    yield "(c) / (d), batch 1", "≥", 1.3, of("sequential", "batched", "steps", 1)
    probed = of("one by one", "together", "directions", 1, DIRECTIONS)
    yield f"{DIRECTIONS} directions at batch 1, one by one / together", "≥", 3.0, probed
    for batch in (1, BATCH):
        yield f"rank 256 / rank 1, batch {batch}", "≤", 1.05, of("256", "1", "rank", batch)
    for row in memory:
        if (row.method, row.evaluation, row.batch) == ("ar1zo", DEFAULT, BATCH):
            yield f"memory, step / evaluation, batch {BATCH}", "≤", 1.05, [_share(row)]


def _steps(cells: Sequence[Cell]) -> str:
    """Milliseconds of every variant, and how the others compare with ours."""
    names = [name for name in STEPS if any(name in cell.seconds for cell in cells)]
    pairs = [("plain", DEFAULT), (DEFAULT, "floor"), ("sequential", "batched")]
    pairs = [(over, under) for over, under in pairs if {over, under} <= set(names)]
    length = any(cell.length for cell in cells)
    heads = ["model", "batch", "rank", *(["length"] if length else []), *(f"{STEPS[name]}, ms" for name in names)]
    heads += ["floor computed", *(f"{over} / {under}" for over, under in pairs)]
    rows = [
        [
            cell.model,
            str(cell.batch),
            str(cell.rank),
            *([str(cell.length)] if length else []),
            *(_spread([1e3 * s for s in cell.seconds[name]], ".4g") for name in names),
            cell.way or "-",
            *(_spread(ratios(cell, *pair), ".2f") for pair in pairs),
        ]
        for cell in cells
    ]
    return _table(heads, rows)


def _against(cells: Sequence[Cell], axis: str) -> str:
    """One line per variant, against the first of its cell."""
    rows = []
    for cell in cells:
        first = next(iter(cell.seconds))
        for name, seconds in cell.seconds.items():
            milliseconds = _spread([1e3 * s for s in seconds], ".4g")
            ratio = _spread(ratios(cell, name, first), ".3f")
            rows.append((cell.model, str(getattr(cell, axis)), name, milliseconds, ratio))
    return _table(("model", axis, "rank" if axis == "batch" else "evaluation", "ms", "against the first"), rows)


def _roundings(rounded: Sequence[Rounding]) -> str:
    rows = [
        (row.model, str(row.rank), row.path, f"{row.slope:.3g}", f"{row.error:.2g}", f"{row.fd_snr_db:.1f}")
        for row in rounded
    ]
    return _table(("model", "rank", "points", "slope", "error", "slope / error, dB"), rows)


def _memory(memory: Sequence[Memory]) -> str:
    rows = [
        (
            row.model,
            str(row.batch),
            " ".join(filter(None, (row.method, row.evaluation))),
            *(f"{size / 2**20:.1f}" for size in (row.weights, row.forward, row.step)),
            f"{_share(row):.3f}",
        )
        for row in memory
    ]
    return _table(("model", "batch", "step of", "model MiB", "forward MiB", "step MiB", "ratio"), rows)


def _share(row: Memory) -> float:
    return (row.weights + row.step) / (row.weights + row.forward)


def _evaluation(cells: Sequence[Cell]) -> str:
    rows = [
        (
            cell.model,
            *(_spread([1 / s for s in cell.seconds[name]], ".1f") for name in ("plain", "ours")),
            _spread(ratios(cell, "plain", "ours"), ".1f"),
            f"{cell.gap:.0e}",
        )
        for cell in cells
    ]
    return _table(("model", "plain", "ours", "ours / plain", "largest gap of a score, nats"), rows)


def _starts(started: Sequence[Start]) -> str:
    rows = []
    for row in started:
        target = STARTS.get(row.what)
        met = "-" if target is None else "yes" if statistics.median(row.seconds) <= target else "no"
        rows.append((row.what, _spread(row.seconds, ".2f"), "-" if target is None else f"≤ {target:g}", met))
    return _table(("process", "seconds", "target", "met"), rows)


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown(pd.DataFrame([list(row) for row in rows], columns=list(heads))) if rows else "Not measured."


def _told(known: dict[str, Any]) -> str:
    source, machine = known["source"], known["machine"]
    commit = source.get("commit", "an installed package") + (" with changes" if source.get("dirty") else "")
    threads = ", ".join(f"{count} for {model}" for model, count in known["threads"].items())
    rows = {
        "commit": commit,
        "date": known["started"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before the run",
        "threads": threads,
        "software": ", ".join(
            [f"Python {known['python']}"] + [f"{k} {known['packages'][k]}" for k in ("torch", "transformers", "peft")]
        ),
        "command": " ".join(["python -m benchmarks", *known["argv"][1:]]),
    }
    return _table(("", "run"), list(rows.items()))


def _cpu() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
