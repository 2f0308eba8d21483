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


def number(value: Any, form: str) -> str:
    """A number formatted by `form`, a text as it is; "-" for NaN, "∞" and "-∞" for infinities."""
    if isinstance(value, str) or not math.isinf(value):
        return "-" if value != value else format(value, form).rstrip(".")
    return "∞" if value > 0 else "-∞"


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of texts."""
    cells = frame.map(_one_line).rename(columns=_one_line)
    return str(cells.to_markdown(index=False, disable_numparse=True))


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("\\", r"\\").replace("|", r"\|")


def latex(frame: pd.DataFrame, caption: str) -> str:
    """A booktabs table of texts."""
    # Not `to_latex(escape=True)`: it leaves the caption, ∞ (an error in LaTeX), and < > | (other signs in its fonts).
    cells = frame.map(escape).rename(columns=escape)
    return str(cells.to_latex(index=False, escape=False, caption=escape(caption)))


def escape(text: str) -> str:
    """`text` on one line, with every character that is special to LaTeX escaped."""
    text = " ".join(text.split()).translate(_ESCAPED).replace(r"-$\infty$", r"$-\infty$")
    text = re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)
    return re.sub(r"^\[", "{[}", text)  # at the start of a row, [4pt] is an option of the line break before it
