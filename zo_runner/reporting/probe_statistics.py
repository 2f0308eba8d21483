"""Statistics of a probe: signal, noise and FD-SNR by rank, exponents in the rank, verdicts on theory. No torch.

What theory predicts for the RMS slope without noise, at equal operating point (B = 0, same gradient): r to the power

    atoms   s = alpha/r   s = alpha/sqrt(r)   s = alpha
    one     -1            -1/2                0
    all     -1/2           0                  1/2

and twice that for its square and for the FD-SNR, since the noise of a slope does not depend on the rank.

Limits are percentiles of a two-stage bootstrap: initialisations of A are drawn with replacement, then directions within
    each, since directions of one initialisation share A. Of a single initialisation they say nothing beyond it. The
    variance of the loss noise is taken as known. Where directions differ much more than initialisations do, limits are
    wider than they need be: a theory is called wrong too seldom rather than too often.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zo_runner.config.schema import ATOMS, SCALINGS
from zo_runner.snr import decibel, fd_snr, slope_noise_variance

THEORY = {
    (atoms, scaling): power + (0.5 if atoms == "all" else 0.0)
    for atoms in ATOMS
    for scaling, power in zip(SCALINGS, (-1.0, -0.5, 0.0), strict=True)
}
FEWEST_RANKS = 3
WIDEST = 1.0  # for the RMS slope: limits further apart tell the theories of one kind of query apart no more
_FACTOR = {"rms": 1, "fd_snr": 2}
_ROUNDING = 1e-9  # limits that have no width still hold their own value
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Measurements for one kind of query at one rank."""

    atoms: str  # "one" or "all"
    scaling: str  # "canonical" (s = alpha/r), "rslora" (alpha/sqrt(r)) or "topology" (alpha)
    rank: int
    eps: float  # perturbation radius, parameter units
    slopes: tuple[float, ...]  # observed slope of each direction, [K], loss per unit direction
    init: tuple[int, ...]  # initialisation of A that each direction was drawn at, [K]; directions of one share A
    exact: tuple[float, ...] | None  # exact directional derivatives, [K]; None where not computed
    cosine: tuple[float, ...] | None  # of averaged update and true gradient, one per init, in order of appearance
    sigma2: float  # variance of the loss noise; 0 is legal

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown name, a number outside its range, a length that does not fit."""
        count, inits = len(self.slopes), len(set(self.init))
        for name, valid, allowed in (
            ("atoms", self.atoms in ATOMS, f"one of {', '.join(ATOMS)}"),
            ("scaling", self.scaling in SCALINGS, f"one of {', '.join(SCALINGS)}"),
            ("rank", self.rank >= 1, "at least 1"),
            ("eps", self.eps > 0, "positive"),
            ("sigma2", self.sigma2 >= 0, "at least 0"),
            ("slopes", count > 0, "at least one"),
            ("init", len(self.init) == count, f"as long as slopes ({count})"),
            ("exact", self.exact is None or len(self.exact) == count, f"as long as slopes ({count})"),
            ("cosine", self.cosine is None or len(self.cosine) == inits, f"one per initialisation ({inits})"),
        ):
            if not valid:
                raise ValueError(f"Invalid {name}: {getattr(self, name)!r}. Must be {allowed}.")

    @property
    def noise(self) -> float:
        """Noise variance of one slope."""
        return slope_noise_variance(self.sigma2, self.eps)


def sign_expected(ratio: float) -> float:
    """P[sign g = sign x] for Gaussian slopes x and Gaussian noise n of FD-SNR F, where g = x + n is observed.

    x and g are jointly Gaussian with correlation rho = sqrt(Var x / (Var x + Var n)) = sqrt(F / (1 + F)). Two such
    variables agree in sign with probability 1/2 + arcsin(rho) / pi (Sheppard 1899), and arcsin(sqrt(F / (1 + F))) =
    arctan(sqrt(F)). So 1/2 + arctan(sqrt(F)) / pi: 1/2 for F = 0, 1 for F = inf.

    Slopes along Gaussian directions are Gaussian at one initialisation; across several the formula takes their mean
    square for all, which is close where that differs little between them.
    """
    return 0.5 + math.atan(math.sqrt(ratio)) / math.pi


def summary(cells: Iterable[Cell], *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """A row per cell, in the order of atoms, scaling and rank; `<name>_low` and `<name>_high` are bootstrap limits.

    Units: rms_slope in loss per unit direction; signal = max(E g^2 - noise, 0) and noise in its square; fd_snr a pure
        ratio, +inf for a signal without noise and NaN when there is neither; sign_agreement a share, in which a slope
        of exactly 0 counts one half (it decides nothing); cosine a mean over initialisations.

    Args:
        cells: at most one for each (atoms, scaling, rank).
        resamples: number of bootstrap resamples.
        seed: a cell's limits follow from it and from the cell alone, whatever other cells there are.
        level: share of the resamples between the limits.

    Raises:
        ValueError: no cell, or two for the same (atoms, scaling, rank).
    """
    rows = []
    for cell in ordered(cells):
        row: dict[str, Any] = {"atoms": cell.atoms, "scaling": cell.scaling, "rank": cell.rank, "eps": cell.eps}
        row |= {"inits": len(set(cell.init)), "directions": len(cell.slopes)}
        means = zip(*_means(cell, resamples, seed), strict=True)
        samples = pd.DataFrame([_statistics(*mean, cell.noise) for mean in means])
        observed = _statistics(*_observed(cell), cell.noise)
        for name, value in observed.items():
            row[name] = value
            row[f"{name}_low"], row[f"{name}_high"] = _limits(samples[name].to_numpy(), level)
        row |= {"noise": cell.noise, "rms_noise": math.sqrt(cell.noise)}
        rows.append(row | {"sign_expected": sign_expected(observed["fd_snr"])})
    return pd.DataFrame(rows)


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """Cells by atoms, scaling and rank.

    Raises:
        ValueError: no cell, or two for the same (atoms, scaling, rank).
    """
    if not (cells := list(cells)):
        raise ValueError("Invalid cells: []. Must be at least one.")
    ordered = sorted(cells, key=lambda cell: (ATOMS.index(cell.atoms), SCALINGS.index(cell.scaling), cell.rank))
    for (atoms, scaling, rank), same in groupby(ordered, key=lambda cell: (cell.atoms, cell.scaling, cell.rank)):
        if (count := len(list(same))) > 1:
            raise ValueError(f"Invalid cells: {count} for {atoms}, {scaling}, rank {rank}. Must be one.")
    return ordered


def _statistics(mean_square: float, agreement: float, cosine: float, noise: float) -> dict[str, float]:
    ratio = fd_snr(mean_square, noise)
    return {
        "rms_slope": math.sqrt(mean_square),
        "signal": max(mean_square - noise, 0.0),
        "fd_snr": ratio,
        "fd_snr_db": decibel(ratio),
        "sign_agreement": agreement,
        "cosine": cosine,
    }


def _agreement(cell: Cell) -> Floats:
    """1 where slope and exact derivative agree in sign, 0 where not, 1/2 where one of them is 0, [K]."""
    if cell.exact is None:
        return np.full(len(cell.slopes), math.nan)
    return (1 + np.sign(cell.slopes) * np.sign(cell.exact)) / 2


def _observed(cell: Cell) -> tuple[float, float, float]:
    """Mean square slope, sign agreement and cosine."""
    cosine = math.nan if cell.cosine is None else float(np.mean(cell.cosine))
    return float(np.mean(np.square(cell.slopes))), float(np.mean(_agreement(cell))), cosine


def _means(cell: Cell, resamples: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """The same three in each resample, [resamples] each."""
    rng = np.random.default_rng((seed, ATOMS.index(cell.atoms), SCALINGS.index(cell.scaling), cell.rank))
    names = list(dict.fromkeys(cell.init))
    members = [np.flatnonzero(np.equal(cell.init, name)) for name in names]
    sizes = np.array([len(member) for member in members])
    padded = np.stack([np.resize(member, sizes.max()) for member in members])
    picks = rng.integers(len(names), size=(resamples, len(names)))
    drawn = sizes[picks][..., None]  # directions to draw, [resamples, inits, 1]
    within = (rng.random((resamples, len(names), sizes.max())) * drawn).astype(int)
    index = padded[picks[..., None], within]
    kept = np.arange(sizes.max()) < drawn
    count = kept.sum(axis=(1, 2))
    mean_square = np.where(kept, np.square(cell.slopes)[index], 0.0).sum(axis=(1, 2)) / count
    agreement = np.where(kept, _agreement(cell)[index], 0.0).sum(axis=(1, 2)) / count
    cosine = np.full(len(names), math.nan) if cell.cosine is None else np.array(cell.cosine)
    return mean_square, agreement, cosine[picks].mean(axis=1)


def _limits(values: Floats, level: float) -> tuple[float, float]:
    """Outward percentiles; no interpolation, so that infinite values survive. NaN where a value is."""
    if not len(values) or np.isnan(values).any():
        return math.nan, math.nan
    tail = (1 - level) / 2
    return float(np.quantile(values, tail, method="lower")), float(np.quantile(values, 1 - tail, method="higher"))


def exponents(
    cells: Iterable[Cell], *, resamples: int = 1000, seed: int = 0, level: float = 0.95, share: float = 0.01
) -> pd.DataFrame:
    """Exponents in the rank, least squares in log-log, two rows for each (atoms, scaling) of three ranks or more.

    Row "rms" is for sqrt(signal), the RMS slope without noise, row "fd_snr" for the FD-SNR. Limits: every rank's cell
    is resampled on its own and the line fitted anew. The verdict:

    - "not decidable", with the reason, where at some rank there is one direction only, or the signal is not positive
      and finite in more than `share` of the resamples; where the limits are further apart than 1 for "rms" or 2 for
      "fd_snr"; and for "fd_snr" where a cell has no noise (it is infinite) or eps differs (it grows as eps^2);
    - otherwise "agrees" where theory's value lies within the limits, "disagrees" where it does not.

    Resamples without a positive signal at every rank, few by the first rule, have no exponent and are left out.

    Args:
        cells: as for `summary`.
        resamples: as for `summary`.
        seed: as for `summary`.
        level: as for `summary`.
        share: of the resamples, from 0 to 1.
    """
    rows = []
    for (atoms, scaling), group in groupby(ordered(cells), key=lambda cell: (cell.atoms, cell.scaling)):
        series = list(group)
        if len(series) < FEWEST_RANKS:
            continue
        noise = np.array([[cell.noise] for cell in series])
        signal = np.array([[_observed(cell)[0]] for cell in series]) - noise  # [ranks, 1]
        samples = np.stack([_means(cell, resamples, seed)[0] for cell in series]) - noise  # [ranks, resamples]
        for quantity, factor in _FACTOR.items():
            reason = _undecidable(series, samples, quantity, share)
            fits = _fit(series, samples, quantity)
            low, high = (math.nan, math.nan) if reason else _limits(fits[~np.isnan(fits)], level)
            if not reason and not high - low <= WIDEST * factor:
                reason = f"limits further apart than {WIDEST * factor:g}"
            theory = factor * THEORY[atoms, scaling]
            verdict = "agrees" if low - _ROUNDING <= theory <= high + _ROUNDING else "disagrees"
            exponent = float(_fit(series, signal, quantity)[0])
            values = atoms, scaling, quantity, len(series), exponent, low, high, theory
            rows.append([*values, "not decidable" if reason else verdict, reason])
    names = "atoms scaling quantity ranks exponent exponent_low exponent_high theory verdict reason"
    return pd.DataFrame(rows, columns=names.split())


def _fit(series: Sequence[Cell], signal: Floats, quantity: str) -> Floats:
    """Least-squares slope of log quantity on log rank for each column of `signal`, [ranks, n] -> [n]; NaN if none."""
    x = np.log([cell.rank for cell in series])
    x -= x.mean()
    noise = np.array([[cell.noise or math.nan] for cell in series])
    ratio = signal / noise if quantity == "fd_snr" else signal
    y = np.log(np.where((ratio > 0) & np.isfinite(ratio), ratio, math.nan)) * _FACTOR[quantity] / 2
    return np.asarray(x @ y / (x @ x), dtype=np.float64)


def _undecidable(series: Sequence[Cell], samples: Floats, quantity: str, share: float) -> str:
    """Reason why there is no exponent, "" where there is one."""
    if quantity == "fd_snr" and any(cell.noise == 0 for cell in series):
        return "no noise, so FD-SNR is infinite"
    if quantity == "fd_snr" and len({cell.eps for cell in series}) > 1:
        return "eps differs between ranks"
    single = [str(cell.rank) for cell in series if len(cell.slopes) < 2]
    lost = 1 - ((samples > 0) & np.isfinite(samples)).mean(axis=1)
    faint = [str(cell.rank) for cell, part in zip(series, lost, strict=True) if part > share]
    if single:
        return f"a single direction at rank {', '.join(single)}"
    return f"no certain signal at rank {', '.join(faint)}" if faint else ""
