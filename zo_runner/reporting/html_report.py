"""A sweep as one HTML page that opens from disk: no network, no script, everything inside. No torch.

Whatever people or programs wrote (names, errors, paths) is escaped by the template. Drawings are taken apart and put
together again, so that nothing but shapes gets into the page and no two of them share an id.
"""

import html
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zo_runner.config.credentials import REMOVED, redacted

# What a drawing may consist of; metadata, styles, titles and comments are left out.
_SHAPES = {
    *("svg", "g", "defs", "symbol", "use", "clipPath", "mask", "marker", "pattern", "linearGradient", "radialGradient"),
    *("stop", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "image"),
}
_LEFT_OUT = {"metadata", "style", "title", "desc"}
_LOCAL = re.compile(r"url\(\s*#")
_ANY_URL = re.compile(r"url\(")
_NUMERIC = re.compile(r"[<≤]?[-−+]?(\d|∞)|[-–]?$")
_NO_VALUE = "–"
# A page is passed around; an address of somebody's W&B account that slipped into an error message is not for it.
_PRIVATE = re.compile(
    r"https?://[^\s/\"'<>]*wandb[^\s\"'<>]*|[\w.-]*\bwandb\.ai\b[^\s\"'<>]*",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Run:
    """One run of the sweep.

    Attributes:
        label: its row.
        seed: of its random streams.
        stage: 1 for tuning, 2 for the runs of the table.
        status: as in result.json, or what stands in its place.
        summary: what came out, in a few words.
        link: relative path from the page to the run directory; empty where there is none.
    """

    label: str
    seed: int
    stage: int
    status: str
    summary: str
    link: str


@dataclass(frozen=True)
class Page:
    """Content of the page.

    Attributes:
        title: of the page.
        question: what the sweep is to answer; blank lines separate paragraphs.
        protocol: how it was run, in words.
        tables: captions and tables of texts.
        figures: captions and drawings, as SVG.
        versions: of the packages and of the source.
        runs: of both stages.
        missing: what is not there, a sentence each.
        refusals: tables that were refused, a sentence each.
        notes: what a reader must know, a sentence each.
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


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        ValueError: a drawing that is no SVG or holds more than shapes, or a link that is not relative.
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
    drawings = [(caption, _inline(svg, f"figure-{i}", caption)) for i, (caption, svg) in enumerate(page.figures, 1)]
    return environment.get_template("report.html.j2").render(
        page=page,
        tables=[_table(caption, frame) for caption, frame in page.tables],
        figures=drawings,
        statuses=sorted(
            Counter(run.status for run in page.runs).items(), key=lambda found: (found[0] != "done", found)
        ),
    )


def _fit(value: object) -> object:
    """Any text on its way into the page: without what is private, in characters that HTML and UTF-8 can hold."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redacted(_PRIVATE.sub(REMOVED, value)))
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


def _inline(svg: str, prefix: str, caption: str) -> Markup:
    """A drawing as an element of the page: only shapes, ids with a prefix, a text alternative.

    What is written in a drawing of matplotlib are shapes too; its comments say what they spell, and become the longer
    description.
    """
    try:
        parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
        root = ElementTree.fromstring(svg, parser)
    except ElementTree.ParseError as error:
        raise ValueError(f"Invalid drawing {caption!r}: {error}. Must be SVG.") from None
    said = [" ".join(html.unescape(str(node.text)).split()) for node in root.iter() if not isinstance(node.tag, str)]
    _keep_shapes(root, prefix)
    root.attrib.pop("height", None)  # it follows from the width, which the page may have to reduce
    root.attrib |= {"role": "img", "aria-labelledby": f"{prefix}-title"}
    title = ElementTree.Element("title", {"id": f"{prefix}-title"})
    title.text = str(_fit(caption))
    root.insert(0, title)
    if said:
        root.set("aria-describedby", f"{prefix}-desc")
        description = ElementTree.Element("desc", {"id": f"{prefix}-desc"})
        description.text = str(_fit("Written in the figure: " + "; ".join(said)))
        root.insert(1, description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _keep_shapes(node: "ElementTree.Element[str]", prefix: str) -> None:
    """Remove namespaces, which HTML does not need, and everything that is not drawn; make ids the drawing's own."""
    node.tag = _local(node.tag)
    if node.tag not in _SHAPES:
        raise ValueError(f"Invalid drawing: <{node.tag}>. Must hold shapes only.")
    attributes = {_local(key): value for key, value in node.attrib.items()}
    node.attrib.clear()
    for key, value in attributes.items():
        if key == "href" and value.startswith("#"):
            value = f"#{prefix}-{value[1:]}"
        elif key == "id":
            value = f"{prefix}-{value}"
        elif (key == "href" and not value.startswith("data:image/")) or key.lower().startswith("on"):
            raise ValueError(f"Invalid drawing: {key}={value!r}. Must hold shapes only.")
        if len(_ANY_URL.findall(value)) != len(_LOCAL.findall(value)):
            raise ValueError(f"Invalid drawing: {key}={value!r}. Must refer to nothing outside itself.")
        node.set(key, _LOCAL.sub(f"url(#{prefix}-", value))
    for child in list(node):
        if not isinstance(child.tag, str) or _local(child.tag) in _LEFT_OUT:  # a comment has a function for a tag
            node.remove(child)
        else:
            _keep_shapes(child, prefix)


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
