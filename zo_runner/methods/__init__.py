"""Methods, usable in anybody's training loop: no Hydra, no PEFT, no transformers."""

from zo_runner.methods.adaprelora import AdaPreLoRA
from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.base import Method, StepReport, ZerothOrder
from zo_runner.methods.first_order import FirstOrder
from zo_runner.methods.fo_adamw import FOAdamW
from zo_runner.methods.fo_sgd import FOSGD
from zo_runner.methods.mezo import MeZO

__all__ = [
    "AR1ZO",
    "FOSGD",
    "AdaPreLoRA",
    "FOAdamW",
    "FirstOrder",
    "MeZO",
    "Method",
    "StepReport",
    "ZerothOrder",
]
