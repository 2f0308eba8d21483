"""Keys without effect in this job or combination: outside a run's identity, and named when typed. No torch."""

from collections.abc import Collection

from omegaconf import DictConfig

from zo_runner.config.derived import calibrates, queries_slopes
from zo_runner.config.schema import AUTO


def ineffective_keys(cfg: DictConfig) -> dict[str, str]:
    """The keys without effect, each with the reason. A node stands for every key in it.

    Args:
        cfg: checked configuration.
    """
    job, method, name = cfg.job, cfg.method, f"method={cfg.method.name}"
    saved = job == "probe" and cfg.probe.adapter is not None
    no_steps = job == "probe" and (saved or not cfg.probe.steps)
    rules = [
        (True, "only -m +sweeps=NAME reads it", "sweep scale"),
        (job != "evaluate", "only job=evaluate reads it", "evaluate"),
        (job != "probe", "only job=probe reads it", "probe"),
        (job != "replay", "only job=replay reads it", "run step"),
        (method.get("eps") != AUTO, "method.eps is a number, and not auto", "calibration.fd_snr_db"),
        (method.get("lr") != AUTO, "method.lr is a number, and not auto", "calibration.every method.lr_scale"),
        (method.get("lr") != AUTO, "method.lr is a number, and not auto", "calibration.walk"),
        (not calibrates(cfg), "neither method.lr nor method.eps is auto", "calibration method.fallback"),
        (job == "evaluate", "job=evaluate trains nothing", "method rank alpha adapter budget noise calibration guard"),
        (job == "evaluate", "job=evaluate trains nothing", "seeds.adapter seeds.order seeds.direction"),
        (job == "probe", "job=probe has a grid of its own: probe.ranks, probe.scalings", "rank method.scaling budget"),
        (job == "probe", "job=probe measures the noise once at each point", "noise.every"),
        (job == "probe", "job=probe has no guard and no calibration", "guard calibration"),
        (no_steps, "job=probe takes no steps", " ".join(f"method.{key}" for key in method if key != "eps")),
        (saved, "probe.adapter is trained already", "probe.ranks probe.scalings probe.steps adapter seeds.adapter"),
    ]
    if job == "train":
        full, first_order = method.trains == "full", not queries_slopes(cfg)
        reason = f"{name} trains every parameter of the model and has no adapter"
        rules.append((full, reason, "rank alpha adapter seeds.adapter method.scaling calibration.walk"))
        reason = f"{name} differentiates the loss, and queries none"
        rules.append((first_order, reason, "noise seeds.direction guard.slope"))
    for key, where in method.get("ineffective", {}).items():
        reason = " and ".join(f"method.{other}={value}" for other, value in where.items())
        rules.append((all(method.get(other) == value for other, value in where.items()), reason, f"method.{key}"))
    return {key: reason for applies, reason, keys in rules if applies for key in keys.split()}


def cautions(cfg: DictConfig, typed: Collection[str]) -> list[str]:
    """Warnings before the run: typed keys without effect, a radius that rounding drowns.

    Args:
        cfg: checked configuration.
        typed: keys given on the command line.
    """
    found, notes = ineffective_keys(cfg), []
    for key in sorted(typed):
        if nodes := [node for node in found if f"{key}.".startswith(f"{node}.")]:
            notes.append(f"{key} has no effect: {found[min(nodes, key=len)]}")
    eps = cfg.method.get("eps")
    if cfg.runtime.dtype != "float32" and isinstance(eps, float | int) and eps <= 1e-3:
        notes.append(
            f"runtime.dtype={cfg.runtime.dtype} with method.eps={eps:g}: rounding is likely larger than the loss "
            "difference; method.eps=1e-2 or float32 is safer, and zo/fd_snr shows which it is"
        )
    return notes
