"""Software and hardware of a run, for meta.json. No torch."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("zo-run", "torch", "transformers", "peft", "hydra-core", "omegaconf", "wandb", "numpy")

# What a number can depend on in its last digits, of what meta.json says.
_MATTERS = ("device", "dtype", "attention", "compiled", "threads", "evaluation", "folded", "python", "platform")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Differences between two sittings of a run, as "torch 2.12.0 (now 2.13.0)".

    Args:
        before: what meta.json says.
        now: the same of this process.
    """
    packages = {name: dict(of.get("packages") or {}) for name, of in (("before", before), ("now", now))}
    for name in ("torch", "transformers", "peft", "zo-run"):
        then, version = packages["before"].get(name), packages["now"].get(name)
        if then != version:
            yield f"{name} {then} (now {version})"
    for key in _MATTERS:
        if key in before and key in now and before[key] != now[key]:
            yield f"{key} {before[key]} (now {now[key]})"


def environment() -> dict[str, Any]:
    """Environment of this process: versions, command, commit of the source tree."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "packages": versions,
        "source": _source(),
    }


def _source() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that this package is run from; empty for an installed one."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return {}
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(folder: Path, *command: str) -> str:
    words = ["git", "-C", str(folder), *command]  # the git that a person has on the PATH
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
