"""Keys and tokens: refused where they are typed or configured, cut out of what is written or said. No torch.

A credential belongs into the environment, or where its own program keeps it (`wandb login`, `hf auth login`). Three
things are taken for one:

- the value of an environment variable whose name ends in KEY, TOKEN, SECRET, PASSWORD or the like, wherever it stands;
- what has the form of one: a token of the Hub, W&B, GitHub, OpenAI or Amazon, and what an address has before its @;
- what follows a name such as `api_key=` or `password:`, on a command line and in messages.

A key of another form, in no variable and without a name, is not recognised.
"""

import os
import re
from typing import Any

REMOVED = "[removed]"

# Shorter values (`yes`, `1`) would be found in any text.
_SHORTEST = 8
_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_FORM = re.compile(
    r"(?<=://)[^/\s@'\"]+(?=@)"
    r"|\b(?:hf_[A-Za-z0-9]{20,}|wandb_v\d+_\w+|gh[pousr]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16})"
)
_NAME = (
    r"(?:(?:api|access|auth|secret|private|refresh|hf|hub|wandb)_?(?:key|token)|(?<![a-z_])token|secret|passw(?:or)?d)"
)
_NAMED = re.compile(
    rf"((?:{_NAME}|authorization)['\"]?\s*[=:]\s*['\"]?)(?:(?:bearer|basic)\s+)?[^\s'\"]+", re.IGNORECASE
)
_WORD = re.compile(rf"[+~]*([\w./@]*[./@_+]|){_NAME}=.+", re.IGNORECASE | re.DOTALL)


def holds(text: str) -> bool:
    """Whether a value of the configuration is or holds a credential."""
    return bool(_FORM.search(text)) or any(value in text for value in _of_environment())


def typed(word: str) -> bool:
    """Whether a word of the command line does, or has the name of one for its key."""
    return holds(word) or bool(_WORD.fullmatch(word))


def redacted(text: str) -> str:
    """A message, without the credentials in it."""
    for value in _of_environment():
        text = text.replace(value, REMOVED)
    return _NAMED.sub(rf"\1{REMOVED}", _FORM.sub(REMOVED, text))


def key_of(node: Any, prefix: str = "") -> str | None:
    """The key of the first value that holds a credential, None where none does.

    Args:
        node: plain containers.
        prefix: where they stand.
    """
    if isinstance(node, str):
        return prefix if holds(node) else None
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = (key_of(part, f"{prefix}.{name}" if prefix else str(name)) for name, part in parts)
    return next((key for key in found if key is not None), None)


def _of_environment() -> list[str]:
    """The longest first, since one may hold another."""
    values = {value for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)
