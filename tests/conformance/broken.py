"""Methods that are wrong on purpose, to show that the rules can tell."""

from zo_runner.methods import LOZO, LOZOM, MeZO, StepReport, ZOSign
from zo_runner.methods.directions import move
from zo_runner.methods.queries import finite, losses_along


class AnotherDrawOnRefresh(MeZO):
    """Every fifth step draws its direction anew between the queries and the update.

    A public implementation of a low-rank method does this whenever it refreshes its subspace.
    """

    def step(self, closure):
        u = self.direction(self.steps)
        loss_plus, loss_minus = losses_along(closure, u, (self.eps, -self.eps))
        slope = (loss_plus - loss_minus) / (2 * self.eps)
        move(self.direction(self.steps + 1000) if self.steps % 5 == 4 else u, slope)
        self._finish(StepReport(self.steps, (loss_plus + loss_minus) / 2, (slope,), self.param_groups[0]["lr"]))
        return self.report.loss


class RestoreBySubtraction(MeZO):
    """Goes to theta + eps u, to theta - eps u and back by adding, as MeZO's reference code does."""

    def step(self, closure):
        u, losses = self.direction(self.steps), []
        for shift in (self.eps, -2 * self.eps):
            for part in u:
                part.view.add_(part.component, alpha=shift)
            losses.append(finite(closure()))
        for part in u:
            part.view.add_(part.component, alpha=self.eps)
        slope = (losses[0] - losses[1]) / (2 * self.eps)
        move(u, slope)
        self._finish(StepReport(self.steps, sum(losses) / 2, (slope,), self.param_groups[0]["lr"]))
        return self.report.loss


class _DrawsOnInUpdates:
    """LOZO as it is published: at every new subspace but the first, the update reads another U from the stream.

    The released code draws V and then U before the queries, and from the same start of the stream only U after them.
    """

    def left(self, param, step, *key):
        another = self.updating and step > 0 and step % self.interval == 0
        return super().left(param, step + 1000 * another, *key)

    updating = False

    def _update(self, u, report):
        self.updating = True
        super()._update(self.direction(report.step), report)
        self.updating = False


class LOZOThatDrawsOnInUpdates(_DrawsOnInUpdates, LOZO):
    """Without momentum."""


class LOZOMThatDrawsOnInUpdates(_DrawsOnInUpdates, LOZOM):
    """With momentum."""


class SignsOfAnotherDraw(ZOSign):
    """Every fifth step takes the signs of another draw."""

    def _update(self, u, report):
        super()._update(self.direction(report.step + 1000) if report.step % 5 == 4 else u, report)
