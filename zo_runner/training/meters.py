"""What a zeroth-order run knows of its slopes: signal, noise, FD-SNR by atom, and how many atoms were queried."""

from dataclasses import asdict, dataclass
from typing import Any

from zo_runner.methods.base import Method, StepReport
from zo_runner.snr import AtomMeters, SignalMeter


@dataclass
class Coverage:
    """How far the atoms of the first module have been queried.

    Attributes:
        atoms: how many there are.
        visited: how many of them have been queried.
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
        """What `load` takes, as JSON holds it."""
        return {
            "slopes": self._slopes and self._slopes.state(),
            "atoms": self._atoms and self._atoms.state(),
            "coverage": self.coverage and asdict(self.coverage),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        if self._slopes is not None:
            self._slopes.load(state["slopes"])
        if self._atoms is not None:
            self._atoms.load(state["atoms"])
            self.coverage = Coverage(**state["coverage"])
