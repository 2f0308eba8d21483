"""Facts that follow from a configuration. No torch."""

from typing import Any

from omegaconf import DictConfig

from zo_runner.config.schema import AUTO, BUDGET_UNITS


def granted(cfg: DictConfig) -> dict[str, Any]:
    """The budget by unit: a number for one of them, None for the others."""
    queries, tokens, seconds = (cfg.budget[unit] for unit in BUDGET_UNITS)
    return {"queries": queries, "tokens": None if tokens is None else int(tokens), "seconds": seconds}


def queries_slopes(cfg: DictConfig) -> bool:
    """True if the method is of zeroth order: it queries the loss at a radius instead of differentiating it."""
    return not cfg.method.get("needs_grad", False)


def calibrates(cfg: DictConfig) -> bool:
    """True if a run measures its learning rate or radius before it trains."""
    return AUTO in (cfg.method.get("lr"), cfg.method.get("eps"))
