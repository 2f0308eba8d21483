"""Differences between two runs of one configuration, one of which was disturbed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from zo_runner.records.json_files import encode, read_lines, read_object
from zo_runner.records.run_directory import read_meta

# Values of a clock or a machine, and their checksums.
FREE = {"seconds", "sum", "checksum", "memory_bytes", "peak_memory_bytes", "peak_memory_of"}

LOGS = ("journal.jsonl", "metrics.jsonl")
TENSORS = ("adapter", "best")

# Files that are being written have such names; a finished run has none.
_ASIDE = ".*"


def differences(run: Path, twin: Path) -> list[str]:
    """Every difference, in words; empty if the disturbed run equals its twin.

    Args:
        run: a finished run's folder.
        twin: folder of the undisturbed run.
    """
    found: list[str] = []
    for name in LOGS:
        try:
            rows, expected = (list(read_lines(folder / name)) for folder in (run, twin))
        except (OSError, ValueError) as error:
            found.append(f"{name} cannot be read: {error}")
            continue
        if len(rows) != len(expected):
            found.append(f"{name}: {len(rows)} rows, {len(expected)} expected")
        for number, (row, other) in enumerate(zip(rows, expected, strict=False), 1):
            found += [f"{name} row {number}: {what}" for what in unequal(row, other)]
    found += _described(run, twin)
    result, expected_result = (read_object(folder / "result.json") for folder in (run, twin))
    found += [f"result.json: {what}" for what in unequal(result, expected_result)]
    for name in TENSORS:
        found += _tensors(run / name, twin / name)
    present, expected_files = ({file.name for file in folder.iterdir()} for folder in (run, twin))
    found += [f"{name} should not be there" for name in sorted(present - expected_files)]
    found += [f"{name} is missing" for name in sorted(expected_files - present)]
    return found


def _described(run: Path, twin: Path) -> Iterator[str]:
    """Differences of config.yaml but for runtime.root, and of the identity in meta.json."""
    configs: list[Any] = []
    for folder in (run, twin):
        try:
            configs.append(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            yield f"config.yaml cannot be read: {error}"
            return
        if isinstance(configs[-1], dict):
            configs[-1].get("runtime", {}).pop("root", None)
    yield from (f"config.yaml: {what}" for what in unequal(*configs))
    identities = [read_meta(folder).get("identity") for folder in (run, twin)]
    yield from (f"meta.json: {what}" for what in unequal(*identities))


def leftovers(run: Path) -> list[str]:
    """Names of files that were being written when a process was killed."""
    return sorted(file.name for file in run.glob(_ASIDE)) if run.is_dir() else []


def unequal(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Differences of two JSON values, except in FREE keys."""
    one, other = encode(one), encode(other)
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key not in FREE:
                yield from unequal(one.get(key), other.get(key), f"{place}/{key}")
    elif one != other:
        yield f"{place or 'value'} is {one!r}, {other!r} expected"


def _tensors(folder: Path, other: Path) -> Iterator[str]:
    if folder.is_dir() != other.is_dir():
        yield f"{folder.name}/ is there in only one of them"
        return
    for file in sorted(other.rglob("*")) if other.is_dir() else []:
        mine = folder / file.relative_to(other)
        if not mine.is_file():
            yield f"{folder.name}/{file.name} is missing"
        elif file.suffix != ".safetensors":
            if mine.read_bytes() != file.read_bytes():
                yield f"{folder.name}/{file.name} differs"
        else:
            yield from _bits(mine, file)


def _bits(file: Path, other: Path) -> Iterator[str]:
    tensors, expected = load_file(file), load_file(other)
    if tensors.keys() != expected.keys():
        yield f"{file.parent.name}/{file.name}: other tensors"
        return
    for name, tensor in tensors.items():
        if tensor.dtype != expected[name].dtype or tensor.tobytes() != expected[name].tobytes():
            yield f"{file.parent.name}/{file.name}: {name} differs"
