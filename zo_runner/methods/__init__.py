"""Methods, usable in anybody's training loop: no Hydra, no PEFT, no transformers."""

from zo_runner.methods.adaprelora import AdaPreLoRA
from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.base import Method, StepReport
from zo_runner.methods.first_order import FirstOrder
from zo_runner.methods.fo_adamw import FOAdamW
from zo_runner.methods.fo_sgd import FOSGD
from zo_runner.methods.fzoo import FZOO
from zo_runner.methods.hizoo import HiZOO
from zo_runner.methods.lozo import LOZO
from zo_runner.methods.lozo_m import LOZOM
from zo_runner.methods.mezo import MeZO
from zo_runner.methods.subzero import SubZero
from zo_runner.methods.zeroth_order import ZerothOrder
from zo_runner.methods.zo_adam import ZOAdam
from zo_runner.methods.zo_sgd_momentum import ZOSGDMomentum
from zo_runner.methods.zo_sign import ZOSign

__all__ = [
    "AR1ZO",
    "FOSGD",
    "FZOO",
    "LOZO",
    "LOZOM",
    "AdaPreLoRA",
    "FOAdamW",
    "FirstOrder",
    "HiZOO",
    "MeZO",
    "Method",
    "StepReport",
    "SubZero",
    "ZOAdam",
    "ZOSGDMomentum",
    "ZOSign",
    "ZerothOrder",
]
