"""The embedded pocket models, and the grammar and the script that make them. Imports no torch."""

from pathlib import Path

ASSETS = ("pocket_opt", "pocket_qwen3")


def asset_path(name: str) -> Path:
    """Return the folder of an embedded checkpoint, ready for `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ValueError: `name` is not an embedded model.
    """
    if name not in ASSETS:
        raise ValueError(f"Invalid asset: {name!r}. Must be one of {', '.join(ASSETS)}.")
    return Path(__file__).resolve().parent / name
