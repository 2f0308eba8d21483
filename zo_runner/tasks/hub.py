"""Datasets of the Hugging Face Hub: one commit of a dataset, read from the local cache, a copy, or the network.

A commit is 40 hexadecimal digits: a branch can move, and a loader that falls back to the newest version in the cache
gives other rows than the ones asked for. So the cache is asked first and only for that commit, a snapshot with a file
missing does not count, and the network is asked only for what is missing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zo_runner.errors import UserError, invalid
from zo_runner.tasks.files import hub_files, shards

# Seconds that the Hub has for its first answer. A download has its own, longer limits: without network it would try for
# 23 seconds.
PATIENCE = 5.0

_DATASET = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def find(dataset: str | None, revision: str | None, config: str | None) -> Path:
    """A folder with the files of one commit, downloaded if they are not in the cache.

    Args:
        dataset: such as "aps/super_glue".
        revision: the commit.
        config: name of the subset.

    Raises:
        UserError: no such name or commit, files that it does not have, or no network where one is needed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit: dict[str, Any] = {"repo_id": dataset, "repo_type": "dataset", "revision": revision}
    try:
        return _checked(snapshot_download(**commit, local_files_only=True), revision, config)
    except (LocalEntryNotFoundError, ValueError):
        pass  # nothing of this commit is in the cache, or not every file, or the name is none: asked again below
    try:
        wanted = _wanted(str(dataset), str(revision), config)
        folder = snapshot_download(**commit, allow_patterns=wanted)
    except UserError:
        raise
    except Exception as error:  # the Hub's library does not export the errors of the transport library that it uses
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"Invalid task.dataset: {dataset!r} at {revision} is not in the cache, or not every file of it, and "
            f"cannot be downloaded ({reason}). Must be reachable on the Hub, or a local copy given as task.path=DIR."
        ) from None
    return _checked(folder, revision, config)


def check(dataset: str | None, revision: str | None) -> None:
    """Check the names of a dataset and a commit.

    Raises:
        UserError: not the form of such a name.
    """
    if not _DATASET.fullmatch(str(dataset)):
        raise invalid("task.dataset", dataset, "the id of a dataset on the Hub, such as owner/name")
    if not _COMMIT.fullmatch(str(revision)):
        raise invalid("task.revision", revision, "the 40 hexadecimal digits of a commit; a branch or tag can move")


def _wanted(dataset: str, revision: str, config: str | None) -> list[str]:
    """Names of the files to download; one quick request, which also says whether there is a network."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(dataset, revision=revision, timeout=PATIENCE)
    names = [file.rfilename for file in info.siblings or []]
    return [name for part in shards(names, config, "task.config", config).values() for name in part]


def _checked(folder: str, revision: str | None, config: str | None) -> Path:
    if Path(folder).name != revision:
        raise RuntimeError(f"Invalid snapshot {folder!r}. Must be of commit {revision}.")
    hub_files(Path(folder), config, "task.dataset")
    return Path(folder)


def count(files: Sequence[Path]) -> int:
    """Number of rows in all files.

    Raises:
        UserError: a file that is not parquet.
    """
    with _parquet(files) as dataset:
        return int(dataset.count_rows())


def rows(files: Sequence[Path], numbers: Sequence[int]) -> list[Mapping[str, Any]]:
    """The rows of these numbers, counted through all files, in the order of `numbers`.

    Raises:
        UserError: a file that is not parquet.
    """
    with _parquet(files) as dataset:
        found: list[Mapping[str, Any]] = dataset.take(list(numbers)).to_pylist()
    return found


@contextmanager
def _parquet(files: Sequence[Path]) -> Iterator[Any]:
    from pyarrow import ArrowException  # type: ignore[import-untyped]  # pyarrow has no types
    from pyarrow.dataset import dataset  # type: ignore[import-untyped]

    try:
        yield dataset(list(map(str, files)), format="parquet")
    except (OSError, ArrowException) as error:
        raise UserError(
            f"Invalid {', '.join(map(str, files))}: {str(error).splitlines()[0]}. Must be parquet files."
        ) from None
