"""What a person should be told of a legal configuration: keys without effect, a signal that will drown. No torch."""

from collections.abc import Collection

from omegaconf import DictConfig

from zo_runner.config.schema import AUTO, BUDGET_UNITS
from zo_runner.config.validation import queries_slopes


def cautions(cfg: DictConfig, typed: Collection[str]) -> list[str]:
    """What a person should be told before the run: keys without effect, settings that drown the signal.

    Args:
        cfg: checked configuration.
        typed: keys given on the command line.
    """
    silent: dict[str, str] = {}
    if cfg.job == "evaluate":
        keys = ("method", "rank", "alpha", "adapter", "budget", "noise", "guard")
        silent = {key: "job=evaluate trains nothing" for key in typed if key.split(".")[0] in keys}
    elif cfg.job == "probe":
        reason = "job=probe has a grid of its own: probe.ranks, probe.atoms, probe.scalings"
        budget = ("budget", *(f"budget.{unit}" for unit in BUDGET_UNITS))
        silent = dict.fromkeys(("rank", "method.atoms", "method.scaling", *budget), reason)
        silent |= dict.fromkeys(("guard.slope", "guard.still"), "job=probe has no guard")
    elif cfg.method.trains == "full":
        reason = f"method={cfg.method.name} trains every parameter of the model and has no adapter"
        silent = dict.fromkeys(
            ("rank", "alpha", "adapter", "adapter.target_modules", "seeds.adapter", "method.scaling"), reason
        )
    elif cfg.method.get("atoms") == "all":
        silent = dict.fromkeys(("method.order", "method.offsets"), "every query covers all atoms")
    if cfg.method.get("lr") != AUTO:
        silent["method.lr_scale"] = "method.lr is a number, and not auto"
    if cfg.job == "train" and not queries_slopes(cfg):
        reason = f"method={cfg.method.name} differentiates the loss, and queries none"
        of_slopes = ("noise", "noise.std", "noise.repeats", "noise.every", "seeds.direction", "guard.slope")
        silent |= dict.fromkeys(of_slopes, reason)
    notes = [f"{key} has no effect: {reason}" for key, reason in silent.items() if key in typed]
    eps = cfg.method.get("eps")
    if cfg.runtime.dtype != "float32" and isinstance(eps, float | int) and eps <= 1e-3:
        notes.append(
            f"runtime.dtype={cfg.runtime.dtype} with method.eps={eps:g}: rounding is likely larger than the loss "
            "difference; method.eps=1e-2 or float32 is safer, and zo/fd_snr shows which it is"
        )
    return notes
