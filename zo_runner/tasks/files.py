"""Data files on disk: where a task's files lie, and what stands in one. Standard library only."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zo_runner.errors import UserError, invalid

SPLITS = ("train", "dev", "test")
HUB_SPLITS = ("train", "validation")

# What a Hub repository calls one of several files of a split, after "train-"; an old converter added a hash.
_SHARD = re.compile(r"(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet")


def local_files(node: Mapping[str, Any]) -> list[Path]:
    """The files at `task.path` that a task would read; none where it has no path, or none is given.

    Args:
        node: arguments of a task: `format`, `path`, and a Hub dataset's `config`.

    Raises:
        UserError: there is no such folder or file.
    """
    path, kind = node.get("path"), node.get("format")
    suffix = {"jsonl": "jsonl", "csv": "csv", "text": "txt"}.get(str(kind))
    if path is None or (suffix is None and kind != "hub"):
        return []
    place = Path(path).expanduser()
    if suffix is None:
        return [file for files in hub_files(place, node.get("config")).values() for file in files]
    return [place] if kind == "text" and place.is_file() else list(split_files(path, suffix).values())


def split_files(path: str | None, suffix: str) -> dict[str, Path]:
    """train, dev and test in a folder, by split.

    Raises:
        UserError: no folder given, or one without a file.
    """
    if path is None:
        raise invalid("task.path", path, f"a folder holding {', '.join(f'{name}.{suffix}' for name in SPLITS)}")
    files = {name: Path(path).expanduser() / f"{name}.{suffix}" for name in SPLITS}
    for file in files.values():
        if not file.is_file():
            raise invalid("task.path", path, f"a folder holding {file.name}")
    return files


def hub_files(folder: Path, config: str | None, key: str = "task.path") -> dict[str, list[Path]]:
    """The parquet files of train and validation in a copy of a Hub repository, in order.

    Args:
        folder: the copy.
        config: name of the subset.
        key: configuration key, for messages.

    Raises:
        UserError: files are missing.
    """
    files = [file for place in _places(config) for file in (folder / place).glob("*.parquet") if file.is_file()]
    names = [file.relative_to(folder).as_posix() for file in files]
    found = shards(names, config, key, str(folder))
    return {split: [folder / name for name in parts] for split, parts in found.items()}


def shards(names: Iterable[str], config: str | None, key: str, value: object) -> dict[str, list[str]]:
    """Of the files of a Hub repository, those of train and validation, in order.

    They lie in a folder named after the subset, else in data/, else at the top; both splits in the same one.

    Args:
        names: paths inside the repository.
        config: name of the subset.
        key: configuration key, for messages.
        value: its value, for messages.

    Raises:
        UserError: a split without files, or with a part of them.
    """
    known = sorted(set(names))
    for place in _places(config):
        found = {split: [name for name in known if _number(name, f"{place}{split}-")] for split in HUB_SPLITS}
        if not any(found.values()):
            continue
        for split, parts in found.items():
            numbers = [_number(name, f"{place}{split}-") for name in parts]
            if not numbers or set(numbers) != {(i, numbers[0][1]) for i in range(numbers[0][1])}:
                has = ", ".join(parts) or "none"
                raise invalid(key, value, f"a dataset with every file of {place}{split}-*.parquet; it has {has}")
        return found
    allowed = " or ".join(f"{place}{{{','.join(HUB_SPLITS)}}}-*.parquet" for place in _places(config))
    raise invalid(key, value, f"a dataset with files {allowed}")


def _places(config: str | None) -> list[str]:
    return [*([f"{config}/"] if config else []), "data/", ""]


def _number(name: str, start: str) -> tuple[int, ...]:
    """Number of a file and number of files of its split; empty for a file of something else."""
    numbered = _SHARD.fullmatch(name, len(start)) if name.startswith(start) else None
    return (int(numbered[1]), int(numbered[2])) if numbered else ()


def sha256(file: Path) -> str:
    """Of the whole file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 of rows that stand in no file, hexadecimal."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; lines end in a line feed.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Invalid {file}: {error}. Must be a readable UTF-8 file.") from None


def content(folder: Path) -> str:
    """A hash of the files in a folder, hidden ones left out."""
    return fingerprint(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of names and contents. Of a large file it reads the size and 64 blocks spread over it.

    Args:
        files: of a checkpoint or a data set.
    """
    block, spots = 1 << 16, 64
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= block * spots:
                digest.update(stream.read())
                continue
            for spot in range(spots):
                stream.seek((size - block) * spot // (spots - 1))
                digest.update(stream.read(block))
    return f"sha256:{digest.hexdigest()[:32]}"
