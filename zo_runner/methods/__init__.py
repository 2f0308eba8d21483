"""Zeroth-order methods, usable in anybody's training loop: no Hydra, no PEFT, no transformers."""

from zo_runner.methods.ar1zo import AR1ZO
from zo_runner.methods.base import StepReport, ZerothOrder
from zo_runner.methods.fzoo import FZOO
from zo_runner.methods.hizoo import HiZOO
from zo_runner.methods.lozo import LOZO
from zo_runner.methods.lozo_m import LOZOM
from zo_runner.methods.mezo import MeZO
from zo_runner.methods.subzero import SubZero
from zo_runner.methods.zo_adam import ZOAdam
from zo_runner.methods.zo_sgd_momentum import ZOSGDMomentum
from zo_runner.methods.zo_sign import ZOSign

__all__ = [
    "AR1ZO",
    "FZOO",
    "LOZO",
    "LOZOM",
    "HiZOO",
    "MeZO",
    "StepReport",
    "SubZero",
    "ZOAdam",
    "ZOSGDMomentum",
    "ZOSign",
    "ZerothOrder",
]
