"""signSGD on the two-sided estimate, in NumPy: the sign of every coordinate of the estimate."""

import numpy as np


def run(problem, z, *, lr, eps, steps):
    theta = dict(problem.theta)
    for t in range(steps):
        u = {m: z(x.shape, t, m) for m, x in theta.items()}
        losses = [problem.loss({m: theta[m] + e * u[m] for m in theta}) for e in (eps, -eps)]
        estimate = {m: (losses[0] - losses[1]) / (2 * eps) * u[m] for m in theta}
        theta = {m: theta[m] - lr * np.sign(estimate[m]) for m in theta}
    return theta
