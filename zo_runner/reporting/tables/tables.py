"""Results -> one matched-budget table per task and model, and one of costs, as Markdown, CSV and LaTeX. No torch.

A row is one configuration; its seeds are averaged. Rows that were not granted the same are never put side by side:
the table refuses and names the difference, or, by request, shows them marked.

    aggregate.py        results -> rows
    comparability.py    conditions that rows must share
    statistics.py       limits over seeds, pairs with the baseline
    score_table.py      the main table
    cost_table.py       the table of costs
    published.py        other people's numbers, below ours
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.errors import Fault
from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.result import TrainResult, read_result
from zo_runner.reporting.tables import cost_table, formats, published, score_table
from zo_runner.reporting.tables.aggregate import ResultRow, sections
from zo_runner.reporting.tables.aggregate import configuration as configuration
from zo_runner.reporting.tables.comparability import Problem, problems, refusal
from zo_runner.reporting.tables.spec import Protocol as Protocol
from zo_runner.reporting.tables.spec import Search as Search
from zo_runner.tasks.metrics import Metric, metric_of

FILES = tuple(f"{name}.{suffix}" for name in ("table", "cost") for suffix in ("md", "csv", "tex"))


@dataclass(frozen=True)
class Table:
    """One task and model.

    Attributes:
        task: name of the task.
        model: name of the model.
        title: task, model, budget and metric.
        metric: the task's first metric.
        scores: the main table's numbers.
        costs: the numbers of the table of costs.
        costs_caption: meaning of these.
        problems: reasons why its rows do not match, where they are shown by request.
        notes: sentences below it.
        baseline: method that rows are paired with; empty where they are not.
    """

    task: str
    model: str
    title: str
    metric: Metric
    scores: pd.DataFrame
    costs: pd.DataFrame
    costs_caption: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    baseline: str

    @property
    def warning(self) -> str:
        """The sentence above a table of rows that do not match; empty otherwise."""
        if not self.problems:
            return ""
        return f"These rows do not match, those with an asterisk (*) least: {'; '.join(self.problems)}."

    def texts(self, *, limits: bool = True) -> pd.DataFrame:
        """The main table as a person reads it, with or without the limits of its means."""
        return score_table.texts(self.scores, self.metric, baseline=self.baseline, limits=limits)

    def cost_texts(self) -> pd.DataFrame:
        """The table of costs as a person reads it."""
        return cost_table.texts(self.costs)


def gather(runs: Iterable[Path]) -> tuple[list[TrainResult], list[str]]:
    """The results of training runs, and a sentence for each folder whose result.json cannot be read.

    Args:
        runs: run directories.
    """
    results, unreadable = [], []
    for run in runs:
        try:
            result = read_result(run / "result.json")
        except Fault as fault:
            unreadable.append(f"{fault} It is left out.")
            continue
        if result is None:
            unreadable.append(f"{run / 'result.json'} is missing or of another version. It is left out.")
        elif isinstance(result, TrainResult):
            results.append(result)
    return results, unreadable


def build(results: Sequence[TrainResult], protocol: Protocol | None = None) -> tuple[list[Table], list[str]]:
    """The tables, and one sentence for each that was refused.

    Args:
        results: of any status; unfinished ones show as missing, and so does a planned run with status "missing".
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
    metric = metric_of(next((result.metric for row in rows for result in row.done), "accuracy"))
    frame = score_table.numbers(rows, protocol, odd)
    return Table(
        task=task,
        model=model,
        title=f"{task}, {model}: {_granted(rows)}, {metric.words}",
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


def write(tables: Sequence[Table], refused: Iterable[str], folder: Path, protocol: Protocol | None = None) -> str:
    """Write table.md, table.csv, table.tex, cost.md, cost.csv and cost.tex.

    Args:
        tables: what `build` returns; where there is none, files of an earlier time are removed.
        refused: the other half of that.
        folder: made if need be.
        protocol: how the tables were built.

    Returns:
        The Markdown of table.md; "" without a table.

    Raises:
        UserError: an unknown name of a published block.
    """
    protocol = protocol or Protocol()
    blocks = published.blocks(protocol.published)
    if not tables:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        return ""
    head = [protocol.caption] if protocol.caption else []
    foot = [f"Refused: {sentence}" for sentence in refused]
    beside = [published.HEADING, *map(published.markdown, blocks)] if blocks else []
    latex = [_latex(table, protocol.caption) for table in tables]
    files = {
        "table.md": _document([*head, *map(_markdown, tables), *foot, *beside]),
        "table.csv": _csv(tables, "scores"),
        "table.tex": _document([*latex, *map(published.latex, blocks)]),
        "cost.md": _document([*head, *map(_cost_markdown, tables)]),
        "cost.csv": _csv(tables, "costs"),
        "cost.tex": _document(map(_cost_latex, tables)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_atomic(folder / name, files[name])
    return files["table.md"]


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
