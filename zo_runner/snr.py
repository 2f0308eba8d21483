"""Signal, evaluation noise and their ratio for two-sided slopes.

Evaluation model: an observed loss is l(theta) + xi, where the residual noise xi has variance sigma^2.

    slope g = (l+ - l-) / (2 eps)           noise variance of g = sigma^2 / (2 eps^2)
    signal  = E g^2                          FD-SNR = max(signal - noise, 0) / noise

Units: signal and noise in (loss per unit direction)^2, FD-SNR a pure ratio. +inf is legal (exact arithmetic has no
    noise).
"""

import math
from collections.abc import Sequence


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


def slope_noise_variance(sigma2: float, eps: float) -> float:
    """Noise variance of a two-sided slope with radius eps: sigma^2 / (2 eps^2)."""
    return sigma2 / (2 * eps * eps)


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


class SignalMeter:
    """Running signal and noise of the slopes of a run.

    The mean square is an exponential window over steps, corrected for its start, so the first value is the first
    slope squared. The noise variance is the mean of the last `noise_window` estimates.

    Args:
        eps: perturbation radius of the slopes.
        window: e-folding length of the signal's window, in steps.
        noise_window: number of noise estimates averaged.
    """

    def __init__(self, eps: float, window: float = 100.0, noise_window: int = 8) -> None:
        self.eps = eps
        self.decay = math.exp(-1.0 / window)
        self.noise_window = noise_window
        self._sum = 0.0
        self._weight = 0.0
        self._sigma2: list[float] = []

    def add_slope(self, slope: float) -> None:
        """Count one slope."""
        self._sum = self.decay * self._sum + slope * slope
        self._weight = self.decay * self._weight + 1.0

    def add_noise(self, losses: Sequence[float]) -> None:
        """Count one set of repeated evaluations of the same batch at the same point."""
        self._sigma2 = [*self._sigma2, loss_noise_variance(losses)][-self.noise_window :]

    def read(self) -> dict[str, float]:
        """`zo/signal`, and once the noise has been measured `zo/noise`, `zo/fd_snr`, `zo/fd_snr_db`."""
        if not self._weight:
            return {}
        signal = self._sum / self._weight
        if not self._sigma2:
            return {"zo/signal": signal}
        noise = slope_noise_variance(math.fsum(self._sigma2) / len(self._sigma2), self.eps)
        ratio = fd_snr(signal, noise)
        return {"zo/signal": signal, "zo/noise": noise, "zo/fd_snr": ratio, "zo/fd_snr_db": decibel(ratio)}
