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
