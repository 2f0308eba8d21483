"""Methods that are wrong on purpose, to show that the rules can tell."""

from zo_runner.directions import finite, losses_along, move
from zo_runner.methods import MeZO, StepReport


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
