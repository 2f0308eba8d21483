"""Adam, Algorithm 1 of arXiv:1412.6980, on the two-sided estimate, in NumPy."""

import numpy as np


def run(problem, z, *, lr, eps, steps, beta1=0.9, beta2=0.999, floor=1e-8):
    theta = dict(problem.theta)
    m, v = dict.fromkeys(theta, 0.0), dict.fromkeys(theta, 0.0)
    for t in range(1, steps + 1):
        u = {n: z(x.shape, t - 1, n) for n, x in theta.items()}
        losses = [problem.loss({n: theta[n] + e * u[n] for n in theta}) for e in (eps, -eps)]
        for n in theta:
            g = (losses[0] - losses[1]) / (2 * eps) * u[n]
            m[n] = beta1 * m[n] + (1 - beta1) * g
            v[n] = beta2 * v[n] + (1 - beta2) * g**2
            m_hat, v_hat = m[n] / (1 - beta1**t), v[n] / (1 - beta2**t)
            theta[n] = theta[n] - lr * m_hat / (np.sqrt(v_hat) + floor)
    return theta
