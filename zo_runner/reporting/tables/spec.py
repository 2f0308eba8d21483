"""Options of a table: the unit that rows must share, their baseline, and the cost of finding them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zo_runner.config.schema import BUDGET_UNITS
from zo_runner.errors import invalid, one_of


@dataclass(frozen=True)
class Search:
    """Costs of stage one for one row.

    Attributes:
        configurations: how many were tried.
        seeds: on how many seeds each.
        queries: charged by all runs of stage one of this row.
        chosen: what was chosen, by dotted key.
    """

    configurations: int
    seeds: int
    queries: int
    chosen: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """Options of a table. The defaults are those of a multirun without a sweep.

    Attributes:
        baseline: name of the method that every row is paired with; None for no paired columns.
        match: the unit of the budget that all rows must have been granted; None for whichever it is.
        allow_unmatched: show rows that were not granted the same, marked and with the reason above them.
        searches: what finding a row cost, by `configuration` of its identity.
        published: names of blocks of published numbers that stand below.
        caption: a sentence above the tables.

    Raises:
        UserError: an unknown unit.
    """

    baseline: str | None = None
    match: str | None = None
    allow_unmatched: bool = False
    searches: Mapping[str, Search] = field(default_factory=dict)
    published: Sequence[str] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        if self.match is not None and self.match not in BUDGET_UNITS:
            raise invalid("sweep.match", self.match, one_of(BUDGET_UNITS))
