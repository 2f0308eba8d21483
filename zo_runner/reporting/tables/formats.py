"""Tables of texts as Markdown and as LaTeX. No torch.

LaTeX needs the package booktabs and nothing else.
"""

import math
import re
from typing import Any

import pandas as pd

_ESCAPED = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "∞": r"$\infty$",
        "±": r"$\pm$",
        "×": r"$\times$",
    }
)


# What would begin an HTML element; a p-value such as <0.001 would not.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")

# A spreadsheet takes a text that begins like this for a formula.
_FORMULA = re.compile(r"(?:[=+@\t\r]|-(?![\d.]|inf)).")


def number(value: Any, form: str) -> str:
    """A number in the words of `form`, a text as it is; "-" for NaN, "∞" and "-∞" where it has no end."""
    if isinstance(value, str) or not math.isinf(value):
        return "-" if value != value else format(value, form).rstrip(".")
    return "∞" if value > 0 else "-∞"


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of texts."""
    cells = frame.map(_one_line).rename(columns=_one_line)
    return str(cells.to_markdown(index=False, disable_numparse=True))


def _one_line(text: str) -> str:
    text = " ".join(text.split()).replace("\\", r"\\").replace("|", r"\|")
    return _TAG.sub("&lt;", text)


def inert(value: Any) -> Any:
    """A cell of a CSV file; before a text that a spreadsheet would compute stands an apostrophe."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def latex(frame: pd.DataFrame, caption: str) -> str:
    """A booktabs table of texts."""
    cells = frame.map(escape).rename(columns=escape)
    # A line that begins with a bracket would be read as an option of the \\ or the rule before it.
    cells.iloc[:, 0] = [_no_option(cell) for cell in cells.iloc[:, 0]]
    cells.columns = pd.Index([_no_option(cells.columns[0]), *cells.columns[1:]])
    return str(cells.to_latex(index=False, escape=False, caption=escape(caption)))


def _no_option(text: str) -> str:
    return re.sub(r"^\[", "{[}", text)


def escape(text: str) -> str:
    """`text` on one line, without anything that LaTeX would take for a command."""
    text = " ".join(text.split()).translate(_ESCAPED).replace(r"-$\infty$", r"$-\infty$")
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)
