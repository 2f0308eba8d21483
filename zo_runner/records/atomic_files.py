"""Files that are there as a whole or not at all, with the permissions that the umask leaves, and never through a link.

What the system refuses (a full disk, a folder that is gone) is a `Fault`. No torch.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from zo_runner.errors import Fault


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Let what the system refuses while `file` is written end the run with one line.

    Raises:
        Fault: the block raised an OSError, or what safetensors makes of one.
    """
    try:
        yield
    except OSError as error:
        raise Fault(f"Cannot write {file}: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise Fault(f"Cannot write {file}: {error}.") from error


@contextmanager
def aside(file: Path) -> Iterator[Path]:
    """A file to write in place of `file`, which it becomes at the end of the block; if that fails, nothing changes.

    Raises:
        Fault: the system refuses.
    """
    with writing(file):
        new = beside(file)
        new.touch(exist_ok=False)
        mode = new.stat().st_mode
        try:
            yield new
            share(new, mode)
            os.replace(new, file)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def write_atomic(file: Path, text: str) -> None:
    """Write `text` so that `file` is either the old one or the whole new one.

    Raises:
        Fault: the system refuses.
    """
    with aside(file) as new, new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def beside(target: Path) -> Path:
    """A name that is not taken. What is made there has the permissions that the umask leaves, as all files of a run."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def share(file: Path, mode: int) -> None:
    """Give a file the permissions that the umask leaves, as `mode` has them: safetensors writes for its owner alone."""
    if file.is_file():
        file.chmod(mode & 0o666)


def delete(target: Path) -> None:
    """Remove a file or a folder, if it is there, and of a link the link."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
