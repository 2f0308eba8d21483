"""A sweep as one HTML page that opens from disk: no network, no script, everything inside. No torch.

The template escapes whatever people or programs wrote (names, errors, paths). Figures are images in data URLs, in which
no script can run.
"""

import base64
import html
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zo_runner.config.credentials import redacted

# matplotlib draws texts as outlines and spells them in comments.
_SPELLED = re.compile(r"<!--(.*?)-->", re.DOTALL)
_NUMERIC = re.compile(r"[<≤]?[-−+]?(\d|∞)|[-–]?$")
_NO_VALUE = "–"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Run:
    """One run of the sweep.

    Attributes:
        label: label of its row.
        seed: seed of its random streams.
        stage: 1 for tuning, 2 for the runs of the table.
        status: status in result.json, or "missing".
        summary: tuned values and the best score, or the error.
        link: relative path from the page to the run directory; empty without one.
    """

    label: str
    seed: int
    stage: int
    status: str
    summary: str
    link: str


@dataclass(frozen=True)
class Page:
    """Contents of the page.

    Attributes:
        title: title of the page.
        question: the question of the sweep; blank lines separate paragraphs.
        protocol: settings of all runs, by name.
        tables: captions and tables of texts.
        figures: captions and figures, as SVG.
        versions: versions of the packages and of the source, by name.
        runs: runs of both stages.
        missing: missing runs, a sentence each.
        refusals: refused tables, a sentence each.
        notes: notes for the reader, a sentence each.
    """

    title: str
    question: str
    protocol: Mapping[str, str]
    tables: Sequence[tuple[str, pd.DataFrame]]
    figures: Sequence[tuple[str, str]]
    versions: Mapping[str, str]
    runs: Sequence[Run]
    missing: Sequence[str]
    refusals: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class _Table:
    caption: str
    columns: list[tuple[str, bool]]  # title, and whether it holds numbers
    rows: list[list[str]]


@dataclass(frozen=True)
class _Figure:
    caption: str
    alt: str
    url: Markup


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        ValueError: a link that is not relative.
    """
    environment = Environment(
        loader=PackageLoader("zo_runner", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"href": _href, "name": lambda link: PurePosixPath(link).name or link}
    return environment.get_template("report.html.j2").render(
        page=page,
        tables=[_table(caption, frame) for caption, frame in page.tables],
        figures=[_figure(caption, svg) for caption, svg in page.figures],
        statuses=sorted(
            Counter(run.status for run in page.runs).items(), key=lambda found: (found[0] != "done", found)
        ),
    )


def _fit(value: object) -> object:
    """Text for the page: without credentials, in characters that HTML and UTF-8 can hold."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redacted(value))
    return text.encode("utf-8", "replace").decode("utf-8")


def _href(link: str) -> str:
    """A relative path as an address: its first part can be no scheme, since the colon is encoded too."""
    if PurePosixPath(link).is_absolute():
        raise ValueError(f"Invalid link: {link!r}. Must be a relative path.")
    return quote(os.fsencode(link))


def _table(caption: str, frame: pd.DataFrame) -> _Table:
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    columns = [str(name) for name in frame.columns]
    numeric = [bool(rows) and all(_NUMERIC.match(row[i]) for row in rows) for i in range(len(columns))]
    return _Table(caption, list(zip(columns, numeric, strict=True)), rows)


def _cell(value: object) -> str:
    # Only a missing value differs from itself; pandas' NA does not even say so.
    return _NO_VALUE if value is None or value is pd.NA or value != value or value == "" else str(value)


def _figure(caption: str, svg: str) -> _Figure:
    said = dict.fromkeys(" ".join(html.unescape(text).split()) for text in _SPELLED.findall(svg))
    words = [text for text in said if any(map(str.isalpha, text))]  # without the numbers along the axes
    alt = f"{caption}. Written in the figure: {'; '.join(words)}" if words else caption
    return _Figure(caption, alt, Markup("data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()))
