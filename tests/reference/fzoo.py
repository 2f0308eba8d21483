"""FZOO, arXiv:2506.09034 as we read it, in NumPy: N random signs, losses one-sided, steps normalised."""

import numpy as np


def run(problem, z, *, lr, eps, steps, num_signs=8):
    theta, N = dict(problem.theta), num_signs
    for t in range(steps):
        u = [{m: np.where(z(x.shape, t, i, m) < 0, -1, 1).astype(x.dtype) for m, x in theta.items()} for i in range(N)]
        l0 = problem.loss(theta)
        losses = np.array([problem.loss({m: theta[m] + eps * u[i][m] for m in theta}) for i in range(N)])
        sigma = np.sqrt(((losses - losses.mean()) ** 2).sum() / (N - 1))
        for m in theta:
            theta[m] = theta[m] - lr * sum(float((losses[i] - l0) / (N * sigma)) * u[i][m] for i in range(N))
    return theta
