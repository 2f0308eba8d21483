"""YAML that somebody else may have written, a sweep or a run's config.yaml: data, never code. No torch.

Tags that name Python objects are refused by the loader, and so is a small file that aliases unfold to a large one.
Interpolations such as `${oc.env:HOME}` stay the text that they are.
"""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zo_runner.errors import UserError

MOST_BYTES = 1 << 20
MOST_VALUES = 100_000


def read(file: Path) -> dict[str, Any]:
    """The mapping in a file, in plain containers.

    Raises:
        UserError: it cannot be read, is no mapping, or is or unfolds to more than a configuration can be.
    """
    try:
        if not file.is_file():  # a pipe would be waited for
            raise ValueError("no file")
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} characters")
        if "*" in text and _unfolded(yaml.compose(text, Loader=yaml.SafeLoader), {}) > MOST_VALUES:
            raise ValueError(f"aliases that unfold to more than {MOST_VALUES} values")
        values = OmegaConf.to_container(OmegaConf.create(text))  # of a lone number an AssertionError
        if not values:
            raise ValueError("no keys")
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException, AssertionError) as error:
        reason = " ".join(str(error).split()) or "no keys"
        raise UserError(f"Invalid {file}: {reason}. Must be a YAML file of keys and values.") from None
    if not isinstance(values, dict):
        raise UserError(f"Invalid {file}: a list. Must be a YAML file of keys and values.")
    return {str(key): value for key, value in values.items()}


def _unfolded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values a node is when every alias has become a copy; a node inside itself has no end."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # what an alias to it finds inside of it
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]
