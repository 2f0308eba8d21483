"""Zeroth-order methods, usable in anybody's training loop: no Hydra, no PEFT, no transformers."""

from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.base import StepReport, ZerothOrder
from zo_runner.methods.mezo import MeZO

__all__ = ["AR1ZO", "MeZO", "StepReport", "ZerothOrder"]
