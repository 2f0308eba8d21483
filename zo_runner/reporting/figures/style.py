"""Settings that all figures share, and files from them: the same numbers give the same bytes.

matplotlib is imported when a figure is drawn, through its object interface, with its own defaults and not the user's.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zo_runner.records.atomic_files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg, the same bytes for the same figure; within `settings`."""
    picture = folder / f"{name}.png"
    picture.unlink(missing_ok=True)  # it may be a link
    figure.savefig(picture, dpi=DPI)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_atomic(folder / f"{name}.svg", drawing.getvalue())
    return [picture, folder / f"{name}.svg"]


@contextmanager
def settings() -> Iterator[None]:
    """Draw with matplotlib's defaults and our few changes; the user's settings come back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rc("svg", hashsalt="zo-run")
        matplotlib.rc("font", size=10)
        matplotlib.rc("axes.spines", top=False, right=False)
        yield
