"""YAML files that hold data and no code: a sweep, or a run's config.yaml. No torch.

OmegaConf's loader reads numbers as Hydra does (`1e-3` is one) and refuses tags that name Python objects. Interpolations
such as `${oc.env:HOME}` stay text.
"""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zo_runner.errors import UserError

MOST_CHARACTERS = 1 << 20


def read(file: Path) -> dict[str, Any]:
    """The mapping in a file, in plain containers.

    Raises:
        UserError: the file cannot be read, is no mapping, or is too long.
    """
    try:
        if not file.is_file():
            raise ValueError("no file")
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"more than {MOST_CHARACTERS} characters")
        values = OmegaConf.to_container(OmegaConf.create(text))  # of a lone number an AssertionError
        if not values:
            raise ValueError("no keys")
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException, AssertionError) as error:
        reason = " ".join(str(error).split()) or "no keys"
        raise UserError(f"Invalid {file}: {reason}. Must be a YAML file of keys and values.") from None
    if not isinstance(values, dict):
        raise UserError(f"Invalid {file}: a list. Must be a YAML file of keys and values.")
    return {str(key): value for key, value in values.items()}
