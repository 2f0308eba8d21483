"""Running signal, noise and FD-SNR of the slopes of a run, of all and by atom; coverage of the atoms."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zo_runner.methods.base import Method, StepReport
from zo_runner.snr import decibel, fd_snr, slope_noise_variance


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
        """State for `load`."""
        return self._sum, self._weight

    def load(self, state: Sequence[float]) -> None:
        """Continue from where `state` was taken."""
        self._sum, self._weight = state


class SignalMeter:
    """Running signal and noise of the slopes of a run.

    The mean square is taken in an exponential window over steps, the noise variance is the mean of the last
    `noise_window` estimates.

    Args:
        eps: perturbation radius of the slopes.
        window: e-folding length of the signal's window, in steps.
        noise_window: number of noise estimates averaged.
        two_sided: True if the slopes are.
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
        """State for `load`, ready for JSON."""
        return {"square": self._square.state(), "sigma2": self._sigma2}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
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
        """Readings of one atom, as of `SignalMeter.read`; empty before its first slope."""
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
        """State for `load`, ready for JSON."""
        return {"visited": self.visited, "squares": [square.state() for square in self._squares]}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
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


@dataclass
class Coverage:
    """Share of the first module's atoms that have been queried.

    Attributes:
        atoms: number of atoms.
        visited: number of atoms queried so far.
        queries: charged queries after which all of them had been; None before that.
    """

    atoms: int
    visited: int = 0
    queries: int | None = None


class Meters:
    """The meters of one run. A method that differentiates the loss has neither slopes nor noise, and they stay empty.

    Args:
        method: that takes the steps.

    Attributes:
        coverage: of the atoms, None for methods that query all at once.
    """

    def __init__(self, method: Method) -> None:
        self.coverage: Coverage | None = None
        self._slopes: SignalMeter | None = None
        self._atoms: AtomMeters | None = None
        if method.has_directions:
            self._slopes = SignalMeter(method.eps, two_sided=method.two_sided)
            if method.num_atoms is not None:
                self._atoms = AtomMeters(method.num_atoms, self._slopes)
                self.coverage = Coverage(method.num_atoms)

    def add(self, report: StepReport, sigma2: float | None, charged: int) -> None:
        """Take in one step.

        Args:
            report: of the step.
            sigma2: variance of the loss's evaluation noise, where it was estimated before the step.
            charged: queries after it.
        """
        if self._slopes is None:
            return
        if sigma2 is not None:
            self._slopes.add_noise(sigma2)
        for slope in report.slopes:
            self._slopes.add_slope(slope)
        if report.atom is None or self._atoms is None or self.coverage is None:
            return
        for slope in report.slopes:
            self._atoms.add_slope(report.atom, slope)
        self.coverage.visited = self._atoms.visited
        if self.coverage.queries is None and self.coverage.visited == self.coverage.atoms:
            self.coverage.queries = charged

    def read(self) -> dict[str, float]:
        """Signal, noise and FD-SNR of the run, as far as they are known."""
        return self._slopes.read() if self._slopes else {}

    def read_atoms(self) -> dict[str, Any]:
        """FD-SNR by atom."""
        return self._atoms.read() if self._atoms else {}

    def state(self) -> dict[str, Any]:
        """State for `load`, ready for JSON."""
        return {
            "slopes": self._slopes and self._slopes.state(),
            "atoms": self._atoms and self._atoms.state(),
            "coverage": self.coverage and asdict(self.coverage),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was taken."""
        if self._slopes is not None:
            self._slopes.load(state["slopes"])
        if self._atoms is not None:
            self._atoms.load(state["atoms"])
            self.coverage = Coverage(**state["coverage"])
