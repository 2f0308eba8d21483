"""Files of a probe: measurements, tables as Markdown and LaTeX, figures. No torch."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from zo_runner.records.atomic_files import write_atomic
from zo_runner.records.json_files import encode, read_lines
from zo_runner.reporting.figures.probe_figures import rank_figures
from zo_runner.reporting.probe_statistics import FEWEST_RANKS, Cell, exponents, ordered, summary
from zo_runner.reporting.tables.formats import latex, markdown, number

# column -> (title, format)
_FORMAT = {
    **{name: (name, "") for name in ("atoms", "scaling", "quantity", "rank", "ranks", "inits", "directions")},
    "rms_slope": ("RMS slope", "#.3g"),
    "rms_noise": ("RMS noise", "#.3g"),
    "fd_snr_db": ("FD-SNR dB", "z.1f"),
    "sign_agreement": ("sign agreement", "z.3f"),
    "sign_expected": ("expected", "z.3f"),
    "cosine": ("cosine", "z.3f"),
    "exponent": ("exponent", "z.2f"),
    "theory": ("theory", "g"),
    "verdict": ("verdict", ""),
    "reason": ("reason", ""),
}


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as a person reads it; limits only where they say something, columns only where they hold something."""
    table = {}
    for name, (title, form) in _FORMAT.items():
        if name not in frame or not (frame[name].notna() & (frame[name] != "")).any():
            continue
        texts = [number(value, form) for value in frame[name]]
        if f"{name}_low" in frame:
            limits = zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            ends = [f" [{number(a, form)}, {number(b, form)}]" if a < b else "" for a, b in limits]
            texts = [text + end for text, end in zip(texts, ends, strict=True)]
        table[title] = texts
    return pd.DataFrame(table)


def write(
    cells: Iterable[Cell],
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> str:
    """Write probe.md, probe.tex, probe.csv, exponents.csv, slopes.jsonl (raw) and the figures; return the Markdown."""
    cells = ordered(cells)
    numbers = summary(cells, resamples=resamples, seed=seed, level=level)
    fitted = exponents(cells, resamples=resamples, seed=seed, level=level)
    tables = {"Slopes and noise": shown(numbers), "Exponents in the rank": shown(fitted)}
    tables = {f"{name}, {level:.0%} limits in brackets": table for name, table in tables.items() if len(table)}
    parts = [f"# {title}", markdown(pd.DataFrame({"fact": facts.keys(), "value": facts.values()}))]
    parts += [f"{name}:\n\n{markdown(table)}" for name, table in tables.items()]
    if not len(fitted):
        parts.append(f"No exponents: no kind of query has {FEWEST_RANKS} ranks.")
    files = {
        "probe.md": "\n\n".join(parts) + "\n",
        "probe.tex": "\n".join(latex(table, f"{title}. {name}") for name, table in tables.items()),
        "probe.csv": numbers.to_csv(index=False),
        "exponents.csv": fitted.to_csv(index=False),
        "slopes.jsonl": "".join(json.dumps(encode(asdict(cell)), allow_nan=False) + "\n" for cell in cells),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        write_atomic(folder / file, text)
    rank_figures(numbers, folder)
    return files["probe.md"]


def read_cells(file: Path) -> list[Cell]:
    """The cells of a slopes.jsonl."""
    rows: list[dict[str, Any]] = []
    for row in read_lines(file):
        rows.append({key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
    return [Cell(**row) for row in rows]
