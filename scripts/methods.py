"""The reference part of docs/methods.md, from the docstrings of the methods and their YAML files.

    python -m scripts.methods docs/methods.md      writes everything below MARK again; what stands above it is kept

One section per constructor, in the order of the names of its YAML files.
"""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf" / "method"
MARK = "<!-- Below this line: written by `python -m scripts.methods docs/methods.md` from the docstrings. -->"


def nodes() -> dict[str, dict[str, Any]]:
    """Every file of conf/method, by name."""
    return {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in sorted(CONF.glob("*.yaml"))}  # type: ignore[misc]


def constructor(node: dict[str, Any]) -> Any:
    """The class that a file builds."""
    module, name = node["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def comment(name: str) -> str:
    """The comment at the head of a YAML file."""
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def section(names: list[str], made: Any) -> str:
    """One constructor: its docstring as it stands, and the YAML files that use it."""
    module: Any = inspect.getmodule(made)
    title, _, body = inspect.cleandoc(module.__doc__).partition("\n\n")
    files = "\n".join(f"- `method={name}`: {comment(name)}" for name in names)
    return f"### {', '.join(names)}\n\n{title}\n\n```text\n{body}\n```\n\n{files}\n"


def reference() -> str:
    """All sections."""
    by_class: dict[Any, list[str]] = {}
    for name, node in nodes().items():
        by_class.setdefault(constructor(node), []).append(name)
    return "\n".join(section(names, made) for made, names in by_class.items())


def rewritten(text: str) -> str:
    """A document with its part below MARK written again."""
    kept = text.partition(MARK)[0].rstrip()
    return f"{kept}\n\n{MARK}\n\n## Every method\n\n{reference()}"


def main() -> None:
    """Write the document."""
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
