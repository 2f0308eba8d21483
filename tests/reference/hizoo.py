"""HiZOO, Algorithm 1 of arXiv:2402.15173, in NumPy: Sigma is the inverse of the Hessian's diagonal."""

import numpy as np


def run(problem, z, *, lr, eps, steps, smoothing=1e-6):
    theta = dict(problem.theta)
    a, Sigma = smoothing, {m: np.ones_like(x) for m, x in theta.items()}
    for t in range(steps):
        u = {m: z(x.shape, t, m) for m, x in theta.items()}
        l0, plus, minus = (
            problem.loss({m: theta[m] + e * np.sqrt(Sigma[m]) * u[m] for m in theta}) for e in (0.0, eps, -eps)
        )
        g = (plus - minus) / (2 * eps)
        for m in theta:
            theta[m] = theta[m] - lr * g * np.sqrt(Sigma[m]) * u[m]
            estimate = (plus + minus - 2 * l0) / (2 * eps**2) * u[m] ** 2 / Sigma[m]
            Sigma[m] = 1 / ((1 - a) / Sigma[m] + a * abs(estimate))
    return theta
