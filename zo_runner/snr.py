"""Signal, evaluation noise and their ratio for slopes.

Evaluation model: an observed loss is l(theta) + xi, where the residual noise xi has variance sigma^2.

    slope g = (l+ - l-) / (2 eps)           noise variance of g = sigma^2 / (2 eps^2)
    signal  = E g^2                          FD-SNR = max(signal - noise, 0) / noise

A one-sided slope (l+ - l0) / eps has the noise variance 2 sigma^2 / eps^2.

The noise variance of a slope does not depend on the direction, so atoms differ in signal only: one estimate of sigma^2
serves all of them.

Units: signal and noise in (loss per unit direction)^2, FD-SNR a pure ratio. +inf is legal (exact arithmetic has no
    noise).
"""

import math
from collections.abc import Sequence
from typing import Any


def loss_noise_variance(losses: Sequence[float]) -> float:
    """Unbiased sample variance of repeated evaluations of one loss at one point: an estimate of sigma^2.

    Raises:
        ValueError: fewer than two losses.
    """
    if len(losses) < 2:
        raise ValueError(f"Invalid number of losses: {len(losses)}. Must be at least 2.")
    # Shifted by the first loss, so that equal losses give exactly 0 and close ones do not cancel.
    shifted = [loss - losses[0] for loss in losses]
    mean = math.fsum(shifted) / len(shifted)
    return math.fsum((x - mean) ** 2 for x in shifted) / (len(shifted) - 1)


def slope_noise_variance(sigma2: float, eps: float, two_sided: bool = True) -> float:
    """Noise variance of a slope with radius eps: sigma^2 / (2 eps^2), and one-sided 2 sigma^2 / eps^2."""
    return sigma2 / (2 * eps * eps) if two_sided else 2 * sigma2 / (eps * eps)


def fd_snr(mean_square_slope: float, noise: float) -> float:
    """max(E g^2 - noise, 0) / noise. +inf for a signal without noise, NaN when there is neither."""
    signal = max(mean_square_slope - noise, 0.0)
    if noise > 0:
        return signal / noise
    return math.inf if signal > 0 else math.nan


def decibel(ratio: float) -> float:
    """10 log10(ratio). -inf for 0; NaN and +inf stay what they are."""
    if ratio == 0:
        return -math.inf
    return 10 * math.log10(ratio)


class MeanSquare:
    """Mean of x^2 in an exponential window, corrected for its start, so the first value is the first x squared.

    Args:
        window: e-folding length, in values added.
    """

    def __init__(self, window: float) -> None:
        self._decay = math.exp(-1.0 / window)
        self._sum = 0.0
        self._weight = 0.0

    def add(self, x: float) -> None:
        """Count one value."""
        self._sum = self._decay * self._sum + x * x
        self._weight = self._decay * self._weight + 1.0

    def read(self) -> float | None:
        """The mean square, None before the first value."""
        return self._sum / self._weight if self._weight else None

    def state(self) -> tuple[float, float]:
        """What `load` takes."""
        return self._sum, self._weight

    def load(self, state: Sequence[float]) -> None:
        """Go on from where `state` was taken."""
        self._sum, self._weight = state


class SignalMeter:
    """Running signal and noise of the slopes of a run.

    The mean square is taken in an exponential window over steps, the noise variance is the mean of the last
    `noise_window` estimates.

    Args:
        eps: perturbation radius of the slopes.
        window: e-folding length of the signal's window, in steps.
        noise_window: number of noise estimates averaged.
        two_sided: whether the slopes are.
    """

    def __init__(self, eps: float, window: float = 100.0, noise_window: int = 8, two_sided: bool = True) -> None:
        self.eps, self.two_sided = eps, two_sided
        self.noise_window = noise_window
        self._square = MeanSquare(window)
        self._sigma2: list[float] = []

    def add_slope(self, slope: float) -> None:
        """Count one slope."""
        self._square.add(slope)

    def add_noise(self, sigma2: float) -> None:
        """Count one `loss_noise_variance`."""
        self._sigma2 = [*self._sigma2, sigma2][-self.noise_window :]

    @property
    def noise(self) -> float | None:
        """Noise variance of a slope, None before it has been measured."""
        if not self._sigma2:
            return None
        return slope_noise_variance(math.fsum(self._sigma2) / len(self._sigma2), self.eps, self.two_sided)

    def read(self) -> dict[str, float]:
        """`zo/signal`, and once the noise has been measured `zo/noise`, `zo/fd_snr`, `zo/fd_snr_db`."""
        return _readings(self._square.read(), self.noise)

    def state(self) -> dict[str, Any]:
        """What `load` takes, as JSON holds it."""
        return {"square": self._square.state(), "sigma2": self._sigma2}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._square.load(state["square"])
        self._sigma2 = list(state["sigma2"])


class AtomMeters:
    """The signal of every atom, beside the meter of the run, which lends its noise.

    Args:
        num_atoms: atoms that a method queries one by one.
        overall: meter of the run.
        window: e-folding length of an atom's window, in slopes of that atom.
    """

    def __init__(self, num_atoms: int, overall: SignalMeter, window: float = 100.0) -> None:
        self.overall = overall
        self.visited = 0
        self._squares = [MeanSquare(window) for _ in range(num_atoms)]

    def add_slope(self, atom: int, slope: float) -> None:
        """Count one slope of one atom.

        Raises:
            ValueError: there is no such atom.
        """
        if not 0 <= atom < len(self._squares):
            raise ValueError(f"Invalid atom: {atom!r}. Must be from 0 to {len(self._squares) - 1}.")
        self.visited += self._squares[atom].read() is None
        self._squares[atom].add(slope)

    def read_atom(self, atom: int) -> dict[str, float]:
        """What `SignalMeter.read` says, of one atom; empty before its first slope."""
        return _readings(self._squares[atom].read(), self.overall.noise)

    def read(self) -> dict[str, Any]:
        """Once the noise has been measured: FD-SNR in dB by atom, NaN where it was not visited, and two counts."""
        if self.overall.noise is None:
            return {}
        levels = [self.read_atom(atom).get("zo/fd_snr_db", math.nan) for atom in range(len(self._squares))]
        return {
            "zo/atoms/fd_snr_db": levels,
            "zo/atoms/infinite": sum(map(math.isinf, levels)),
            "zo/atoms/unvisited": len(self._squares) - self.visited,
        }

    def state(self) -> dict[str, Any]:
        """What `load` takes, as JSON holds it."""
        return {"visited": self.visited, "squares": [square.state() for square in self._squares]}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.visited = state["visited"]
        for square, saved in zip(self._squares, state["squares"], strict=True):
            square.load(saved)


def _readings(signal: float | None, noise: float | None) -> dict[str, float]:
    if signal is None:
        return {}
    if noise is None:
        return {"zo/signal": signal}
    ratio = fd_snr(signal, noise)
    return {"zo/signal": signal, "zo/noise": noise, "zo/fd_snr": ratio, "zo/fd_snr_db": decibel(ratio)}
