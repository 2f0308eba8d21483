"""Other people's numbers, from published.yaml, each with its paper and its differences from ours. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from zo_runner.errors import invalid, one_of
from zo_runner.reporting.tables import formats

HEADING = "### Published elsewhere (not comparable run by run)"
FILE = Path(__file__).resolve().parent / "published.yaml"


@dataclass(frozen=True)
class Block:
    """One published table.

    Attributes:
        name: of the block, as in sweep.published.
        paper: authors, year, title and table, as far as they are known.
        arxiv: its number there, None where it is not known.
        secondary: True if the numbers were read in a summary of the paper.
        model: base model.
        protocol: budget, batch size and search.
        difference: from our tables.
        columns: tasks.
        rows: method -> a number per task, in percent, NaN where the paper has none.
    """

    name: str
    paper: str
    arxiv: str | None
    secondary: bool
    model: str
    protocol: str
    difference: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]

    @property
    def source(self) -> str:
        """Source of the numbers, in one sentence."""
        number = f", arXiv:{self.arxiv}" if self.arxiv else ""
        how = ", read in a summary of the paper" if self.secondary else ""
        return f"{self.paper}{number}{how}"


def blocks(names: Sequence[str]) -> list[Block]:
    """The blocks of these names, in this order.

    Raises:
        UserError: an unknown name.
    """
    if not names:
        return []
    data = OmegaConf.to_container(OmegaConf.load(FILE))
    assert isinstance(data, dict)
    if unknown := [name for name in names if name not in data]:
        raise invalid("sweep.published", unknown[0], one_of(data))
    return [_block(name, data[name]) for name in names]


def names() -> list[str]:
    """Every name that `blocks` knows."""
    return [str(name) for name in OmegaConf.load(FILE)]


def _block(name: str, data: dict[str, Any]) -> Block:
    texts: dict[str, Any] = {
        key: " ".join(data.pop(key).split()) for key in ("paper", "model", "protocol", "difference")
    }
    rows = {
        method: tuple(math.nan if value is None else value for value in values)
        for method, values in data.pop("rows").items()
    }
    return Block(name=name, columns=tuple(data.pop("columns")), rows=rows, **texts, **data)


def frame(block: Block) -> pd.DataFrame:
    """A line per method, a column per task, in percent; the method stands in the first column."""
    numbers = pd.DataFrame(block.rows, index=list(block.columns)).T
    numbers.insert(0, "method", numbers.index)
    return numbers.reset_index(drop=True)


def _texts(block: Block) -> pd.DataFrame:
    """Every column with as many decimals as its paper gives."""
    shown = frame(block)
    for column in block.columns:
        digits = max(len(f"{value:g}".partition(".")[2]) for value in shown[column])
        shown[column] = [formats.number(value, f".{digits}f") for value in shown[column]]
    return shown


def markdown(block: Block) -> str:
    """The block as a person reads it, with its source, protocol and difference."""
    told = f"**{block.model}, {block.source}.** {block.protocol} Different from ours: {block.difference}"
    return f"{told}\n\n{formats.markdown(_texts(block))}"


def latex(block: Block) -> str:
    """The same as a booktabs table."""
    told = f"Published: {block.model}, {block.source}. {block.protocol} Different from ours: {block.difference}"
    return formats.latex(_texts(block), told)
