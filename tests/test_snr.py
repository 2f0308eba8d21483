"""Signal, noise and their ratio: unbiased, exact where they must be, and honest about infinity."""

import math
import random
import statistics

import numpy as np
import pytest

from zo_runner.snr import decibel, fd_snr, loss_noise_variance, slope_noise_variance
from zo_runner.training.meters import AtomMeters, SignalMeter

INF, NAN = math.inf, math.nan


def test_loss_noise_variance_is_the_sample_variance():
    losses = [0.1, 0.4, 0.35, 0.2]
    assert loss_noise_variance(losses) == pytest.approx(statistics.variance(losses), rel=1e-12)
    ulp = 2.0**-23  # losses that differ in the last bits keep their variance
    assert loss_noise_variance([1000 + k * ulp for k in (0, 1, 2)]) == pytest.approx(ulp**2, rel=1e-12)
    for loss in (0.1, 1e-30, -3.3, 1e30):
        assert loss_noise_variance([loss] * 7) == 0.0
    for few in ([], [0.5]):
        with pytest.raises(ValueError, match=rf"^Invalid number of losses: {len(few)}\. Must be at least 2\.$"):
            loss_noise_variance(few)


def test_loss_noise_variance_is_unbiased_for_few_repeats():
    """The mean of many estimates from 2 or 8 losses is sigma^2, not (M - 1) / M of it."""
    draw = random.Random(0)
    for repeats in (2, 8):
        estimates = [loss_noise_variance([draw.gauss(0.7, 0.03) for _ in range(repeats)]) for _ in range(8000)]
        standard_error = statistics.stdev(estimates) / len(estimates) ** 0.5
        assert abs(statistics.fmean(estimates) - 0.03**2) < 4 * standard_error
        assert standard_error < 0.02 * 0.03**2


@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_slope_noise_variance_is_what_noisy_losses_give(eps):
    sigma, draws = 0.02, 40_000
    noise = np.random.default_rng(0).normal(0.0, sigma, (2, draws))
    slopes = (noise[0] - noise[1]) / (2 * eps)
    assert slope_noise_variance(sigma**2, eps) == pytest.approx(slopes.var(), rel=4 * math.sqrt(2 / draws))
    one_sided = (noise[0] - noise[1]) / eps
    expected = slope_noise_variance(sigma**2, eps, two_sided=False)
    assert expected == pytest.approx(one_sided.var(), rel=4 * math.sqrt(2 / draws))
    meter = SignalMeter(eps, two_sided=False)
    meter.add_noise(loss_noise_variance([0.0, sigma * math.sqrt(2)]))
    assert meter.noise == pytest.approx(slope_noise_variance(sigma**2, eps, two_sided=False))


def test_fd_snr_and_decibel():
    for mean_square, noise, expected in (
        (5.0, 1.0, 4.0),
        (1.0, 1.0, 0.0),
        (0.5, 1.0, 0.0),  # a signal below the noise is no signal, never a negative one
        (0.0, 1.0, 0.0),
        (5.0, 0.0, INF),
        (0.0, 0.0, NAN),
        (INF, 1.0, INF),
        (5.0, INF, 0.0),
        (NAN, 1.0, NAN),
        (5.0, NAN, NAN),
    ):
        assert fd_snr(mean_square, noise) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    ratios = (1.0, 100.0, 0.01, 0.0, INF, NAN)
    assert list(map(decibel, ratios)) == pytest.approx([0.0, 20.0, -20.0, -INF, INF, NAN], rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("true_rms", [0.0, 0.4, 3.0])
def test_the_signal_less_the_noise_is_unbiased(true_rms):
    """Over many short runs, before the max: the mean of E g^2 - v is that of the true slopes, v = sigma^2 / (2 eps^2).

    Both are read from the meter, which measures v from few losses. Slopes of +-true_rms have a known mean square.
    """
    eps, sigma, steps, runs = 1e-2, 0.01, 12, 4000
    draw = random.Random(2)
    signals, corrected = [], []
    for _ in range(runs):
        meter = SignalMeter(eps, window=5.0)
        meter.add_noise(loss_noise_variance([0.7 + draw.gauss(0, sigma) for _ in range(4)]))
        for _ in range(steps):
            true = draw.choice((-true_rms, true_rms))
            meter.add_slope(true + (draw.gauss(0, sigma) - draw.gauss(0, sigma)) / (2 * eps))
        reading = meter.read()
        signals.append(reading["zo/signal"])
        corrected.append(reading["zo/signal"] - reading["zo/noise"])
    standard_error = statistics.stdev(corrected) / runs**0.5
    assert abs(statistics.fmean(corrected) - true_rms**2) < 4 * standard_error
    assert standard_error < 0.1 * slope_noise_variance(sigma**2, eps)
    assert statistics.fmean(signals) - true_rms**2 > 8 * standard_error  # uncorrected it is far too large


def test_constant_slopes_read_as_their_square_and_are_forgotten_with_the_e_folding_length():
    for window in (1.0, 7.0, 100.0):
        meter = SignalMeter(1e-3, window=window)
        for _ in range(300):
            meter.add_slope(-0.5)
            assert meter.read()["zo/signal"] == pytest.approx(0.25, rel=1e-13)
    meter = SignalMeter(1e-3, window=10.0)
    for slope in [1.0] * 1000 + [0.0] * 10:
        meter.add_slope(slope)
    assert meter.read()["zo/signal"] == pytest.approx(math.exp(-1), rel=1e-6)


def test_the_signal_is_a_weighted_mean_of_squares():
    decay, meter = math.exp(-1 / 5), SignalMeter(1e-3, window=5.0)
    for slope in (1.0, 2.0, 4.0):
        meter.add_slope(slope)
    weights = [decay**2, decay, 1.0]
    expected = sum(w * g * g for w, g in zip(weights, (1.0, 2.0, 4.0), strict=True)) / sum(weights)
    assert meter.read()["zo/signal"] == pytest.approx(expected, rel=1e-12)


def test_the_meter_says_only_what_has_been_measured():
    meter, plain = SignalMeter(1e-3), SignalMeter(1e-2)
    assert meter.read() == {}
    meter.add_noise(loss_noise_variance([0.5] * 8))
    assert meter.read() == {}
    meter.add_slope(1.0)  # without noise the ratio is infinite or undefined
    assert {key: meter.read()[key] for key in ("zo/noise", "zo/fd_snr", "zo/fd_snr_db")} == {
        "zo/noise": 0.0,
        "zo/fd_snr": INF,
        "zo/fd_snr_db": INF,
    }
    flat = SignalMeter(1e-3)
    flat.add_slope(0.0)
    flat.add_noise(0.0)
    assert math.isnan(flat.read()["zo/fd_snr"])
    assert math.isnan(flat.read()["zo/fd_snr_db"])
    plain.add_slope(3.0)
    assert plain.read() == {"zo/signal": 9.0}


def test_noise_is_the_mean_of_the_last_estimates():
    meter = SignalMeter(0.5, noise_window=2)
    meter.add_slope(10.0)
    for gap in (100.0, 2.0, 4.0):  # two losses that far apart have the variance gap^2 / 2
        meter.add_noise(loss_noise_variance([0.0, gap]))
    sigma2 = (2.0 + 8.0) / 2
    reading = meter.read()
    assert set(reading) == {"zo/signal", "zo/noise", "zo/fd_snr", "zo/fd_snr_db"}
    assert reading["zo/noise"] == pytest.approx(sigma2 / (2 * 0.5**2), rel=1e-12)
    assert reading["zo/fd_snr"] == pytest.approx((100 - reading["zo/noise"]) / reading["zo/noise"], rel=1e-12)
    assert reading["zo/fd_snr_db"] == pytest.approx(10 * math.log10(reading["zo/fd_snr"]), rel=1e-12)


# Atoms


def atoms_fed(visits, losses=(), window=100.0, num_atoms=4):
    """Meters after (atom, slope) pairs, each given to the meter of the run too, as the loop does."""
    overall = SignalMeter(0.5)
    meters = AtomMeters(num_atoms, overall, window)
    if losses:
        overall.add_noise(loss_noise_variance(losses))
    for k, slope in visits:
        overall.add_slope(slope)
        meters.add_slope(k, slope)
    return meters


def test_an_atom_is_metered_by_its_own_slopes_and_the_noise_of_all():
    meters = atoms_fed([(0, 3.0), (2, 1.0), (0, -5.0), (2, 2.0), (0, 4.0)], losses=[0.0, 2.0], window=5.0)
    noise = 2.0 / (2 * 0.5**2)  # losses 0 and 2 have variance 2
    decay = math.exp(-1 / 5)
    expected = {0: (9 * decay**2 + 25 * decay + 16) / (decay**2 + decay + 1), 2: (1 * decay + 4) / (decay + 1)}
    for k, signal in expected.items():
        reading = meters.read_atom(k)
        assert reading["zo/signal"] == pytest.approx(signal, rel=1e-12)
        assert reading["zo/noise"] == noise == meters.overall.read()["zo/noise"]
        assert reading["zo/fd_snr"] == pytest.approx(max(signal - noise, 0) / noise, rel=1e-12)
    levels = meters.read()["zo/atoms/fd_snr_db"]
    ratio = (expected[0] - noise) / noise
    assert levels == pytest.approx([10 * math.log10(ratio), NAN, -INF, NAN], rel=1e-12, nan_ok=True)
    assert (meters.visited, meters.read_atom(1)) == (2, {})
    for atom in (-1, 4):
        with pytest.raises(ValueError, match=rf"^Invalid atom: {atom}\. Must be from 0 to 3\.$"):
            atoms_fed([(atom, 1.0)])


def test_a_single_atom_reads_as_the_whole_run():
    slopes = [(0, slope) for slope in (1.0, -7.0, 3.0)]
    meters = atoms_fed(slopes, losses=[0.5, 0.6, 0.4], num_atoms=1)
    assert meters.read_atom(0) == meters.overall.read()
    assert meters.read()["zo/atoms/fd_snr_db"] == [meters.overall.read()["zo/fd_snr_db"]]


@pytest.mark.parametrize(
    ("losses", "levels", "infinite"),
    [
        ([0.5, 0.5], [INF, NAN, INF, NAN], 2),  # no noise: +inf, and nothing over nothing for the flat atom 3
        ([0.0, 20.0], [-INF, NAN, -INF, -INF], 3),  # no signal above the noise
    ],
)
def test_what_no_histogram_can_hold_is_counted(losses, levels, infinite):
    reading = atoms_fed([(0, 3.0), (2, 1.0), (3, 0.0)], losses).read()
    assert reading["zo/atoms/fd_snr_db"] == pytest.approx(levels, nan_ok=True)
    assert (reading["zo/atoms/infinite"], reading["zo/atoms/unvisited"]) == (infinite, 1)


def test_atoms_say_nothing_before_the_noise_has_been_measured():
    meters = atoms_fed([(0, 3.0)])
    assert meters.read() == {}
    assert meters.read_atom(0) == {"zo/signal": 9.0}
    assert (meters.visited, meters.overall.noise) == (1, None)
