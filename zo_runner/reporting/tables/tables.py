"""Results -> one matched-budget table per task and model, and one of costs, as Markdown, CSV and LaTeX. No torch.

A row is one configuration; its seeds are averaged. Rows that were not granted the same are never put side by side:
the table refuses and names the difference, or, by request, shows them marked.

    zo_runner/reporting/tables/aggregate.py          results -> rows: what may be averaged
    zo_runner/reporting/tables/comparability.py      what rows must share
    zo_runner/reporting/tables/statistics.py    limits over seeds, pairs with the baseline
    zo_runner/reporting/tables/score_table.py        the main table
    zo_runner/reporting/tables/cost_table.py         the table of costs
    zo_runner/reporting/tables/published.py     other people's numbers, below ours
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.run_directory import read_result
from zo_runner.reporting.tables import cost_table, formats, published, score_table
from zo_runner.reporting.tables.aggregate import ResultRow, read, sections
from zo_runner.reporting.tables.aggregate import configuration as configuration
from zo_runner.reporting.tables.comparability import Problem, problems, refusal
from zo_runner.reporting.tables.spec import Protocol as Protocol
from zo_runner.reporting.tables.spec import Search as Search

FILES = tuple(f"{name}.{suffix}" for name in ("table", "cost") for suffix in ("md", "csv", "tex"))

# Without these a result cannot be told from another.
_NEEDED = {"run_id": str, "status": str, "task": str, "model": str, "seed": int, "identity": dict}


@dataclass(frozen=True)
class Table:
    """One task and model.

    Attributes:
        task: name of the task.
        model: name of the model.
        title: what is compared, on what budget.
        metric: the task's first metric.
        scores: the main table's numbers.
        costs: the numbers of the table of costs.
        costs_caption: what these are.
        problems: why its rows do not match, where they are shown by request.
        notes: what a reader must know beside it.
        baseline: what rows are paired with; empty where they are not.
    """

    task: str
    model: str
    title: str
    metric: str
    scores: pd.DataFrame
    costs: pd.DataFrame
    costs_caption: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    baseline: str

    @property
    def warning(self) -> str:
        """What stands above a table of rows that do not match."""
        if not self.problems:
            return ""
        return f"These rows do not match, those with an asterisk (*) least: {'; '.join(self.problems)}."

    def texts(self, *, limits: bool = True) -> pd.DataFrame:
        """The main table as a person reads it, with or without the limits of its means."""
        return score_table.texts(self.scores, self.metric, baseline=self.baseline, limits=limits)

    def cost_texts(self) -> pd.DataFrame:
        """The table of costs as a person reads it."""
        return cost_table.texts(self.costs)


def gather(runs: Iterable[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results of training runs, and a sentence for each folder whose result.json cannot be read.

    Args:
        runs: run directories.
    """
    results, unreadable = [], []
    for run in runs:
        result = read_result(run / "result.json")
        if result is None or not _is_whole(result):
            unreadable.append(f"{run / 'result.json'} is missing, not whole, or of another version; it is left out.")
        elif result.get("job", "train") == "train":
            results.append(result)
    return results, unreadable


def _is_whole(result: Mapping[str, Any]) -> bool:
    typed = all(isinstance(result.get(key), kind) for key, kind in _NEEDED.items())
    return typed and isinstance(read(result, "identity", "method", "name"), str)


def build(results: Iterable[Mapping[str, Any]], protocol: Protocol | None = None) -> tuple[list[Table], list[str]]:
    """The tables, and one sentence for each that was refused.

    Args:
        results: results of any status; unfinished ones show as missing. A planned run that does not exist yet stands
            among them as its run_id, identity, task, model and seed, with status "missing".
        protocol: how the tables are to be made.
    """
    protocol = protocol or Protocol()
    tables, refused = [], []
    for (task, model), rows in sections(results).items():
        found = problems(rows, protocol.match)
        if found and not protocol.allow_unmatched:
            refused.append(f"{task}, {model}: {refusal(found)}")
        else:
            tables.append(_table(task, model, rows, protocol, found))
    return tables, refused


def _table(task: str, model: str, rows: Sequence[ResultRow], protocol: Protocol, found: Sequence[Problem]) -> Table:
    odd = frozenset[str]().union(*(problem.rows for problem in found))
    metric = next((result["metric"] for row in rows for result in row.done), "accuracy")
    frame = score_table.numbers(rows, protocol, odd)
    return Table(
        task=task,
        model=model,
        title=f"{task}, {model}: {_granted(rows)}, {metric.replace('_', ' ')}",
        metric=metric,
        scores=frame,
        costs=cost_table.numbers(rows, protocol, odd),
        costs_caption=cost_table.caption(rows),
        problems=tuple(problem.reason for problem in found),
        notes=tuple(score_table.notes(rows, frame, protocol)),
        baseline=protocol.baseline or "",
    )


def _granted(rows: Sequence[ResultRow]) -> str:
    """The budget in words."""
    budgets = {tuple(row.identity.get(f"budget.{unit}") for unit in BUDGET_UNITS) for row in rows}
    batches = {row.identity.get("batch_size") for row in rows}
    if len(budgets) > 1 or len(batches) > 1:
        return "different budgets"
    limits = zip(BUDGET_UNITS, budgets.pop(), strict=True)
    granted = " and ".join(f"{limit} {unit}" for unit, limit in limits if limit is not None)
    return f"{granted} of {batches.pop()} examples" if granted.endswith("queries") else granted


def write(
    results: Iterable[Mapping[str, Any]], folder: Path, protocol: Protocol | None = None
) -> tuple[str, list[str]]:
    """Write table.md, table.csv, table.tex, cost.md, cost.csv and cost.tex.

    Args:
        results: as for `build`.
        folder: where to write; made if need be. Where every table is refused, those of an earlier time are removed.
        protocol: how the tables are to be made.

    Returns:
        The Markdown of table.md, and one sentence for each table that was refused.

    Raises:
        UserError: an unknown name of a published block.
    """
    protocol = protocol or Protocol()
    blocks = published.blocks(protocol.published)
    tables, refused = build(results, protocol)
    if not tables:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        return "", refused
    head = [protocol.caption] if protocol.caption else []
    foot = [f"Refused: {sentence}" for sentence in refused]
    beside = [published.HEADING, *map(published.markdown, blocks)] if blocks else []
    text = _document([*head, *map(_markdown, tables), *foot, *beside])
    latex = [_latex(table, protocol.caption) for table in tables]
    files = {
        "table.md": text,
        "table.csv": _csv(tables, "scores"),
        "table.tex": _document([*latex, *map(published.latex, blocks)]),
        "cost.md": _document([*head, *map(_cost_markdown, tables)]),
        "cost.csv": _csv(tables, "costs"),
        "cost.tex": _document(map(_cost_latex, tables)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_atomic(folder / name, files[name])
    return text, refused


def _document(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _markdown(table: Table) -> str:
    title = f"### {table.title}, mean ± sd [95 % t-interval of the mean] over n seeds"
    notes = "\n".join(f"- {note}" for note in table.notes)
    return _document([title, _bold(table.warning), formats.markdown(table.texts()), notes])


def _cost_markdown(table: Table) -> str:
    title = f"### Costs, {table.title}"
    return _document([title, _bold(table.warning), formats.markdown(table.cost_texts()), table.costs_caption])


def _bold(sentence: str) -> str:
    return f"**{sentence}**" if sentence else ""


def _latex(table: Table, caption: str) -> str:
    # A page is narrow: limits of means stand in the other two formats only.
    frame, same = _narrow(table.texts(limits=False))
    title = f"{table.title}, mean ± sd over n seeds."
    head = f"{caption.rstrip('. ')}." if caption else ""
    told = " ".join(part for part in (head, title, same, table.warning, *table.notes) if part)
    return formats.latex(frame, told)


def _cost_latex(table: Table) -> str:
    frame, same = _narrow(table.cost_texts())
    parts = (f"Costs, {table.title}.", same, table.warning, table.costs_caption)
    return formats.latex(frame, " ".join(part for part in parts if part))


def _narrow(texts: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The columns in which rows differ, and a sentence on the others."""
    same = [name for name in texts.columns[1:] if len(texts) > 1 and texts[name].nunique() == 1]
    told = ", ".join(f"{name} {texts[name].iloc[0]}" for name in same)
    return texts.drop(columns=same), f"The same in all rows: {told}." if same else ""


def _csv(tables: Sequence[Table], kind: str) -> str:
    frames = []
    for table in tables:
        frame: pd.DataFrame = getattr(table, kind).copy()
        frame.insert(0, "task", table.task)
        frame.insert(1, "model", table.model)
        frames.append(frame)
    return str(pd.concat(frames).to_csv(index=False))
