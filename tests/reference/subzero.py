"""SubZero, Algorithms 1 to 3 of arXiv:2410.08989, in NumPy, on full matrices, with perturbations of MeZO's norm."""

import numpy as np


def basis(gaussian):
    """Gram-Schmidt, one column after the other."""
    columns = []
    for x in gaussian.T:
        for _ in range(2):
            x = x - sum(c * (c @ x) for c in columns)
        columns.append(x / np.linalg.norm(x))
    return np.stack(columns, axis=1)


def run(problem, z, *, lr, eps, steps, rank=24, interval=1000):
    W = dict(problem.theta)
    r = {m: min(rank, *W[m].shape) for m in W}
    for t in range(steps):
        U = {m: basis(z((W[m].shape[0], r[m]), t // interval, m, "U")) for m in W}
        V = {m: basis(z((W[m].shape[1], r[m]), t // interval, m, "V")) for m in W}
        Z = {m: np.sqrt(W[m].size / r[m] ** 2) * U[m] @ z((r[m], r[m]), t, m, "Z") @ V[m].T for m in W}
        Z = {m: Z[m].astype(W[m].dtype) for m in W}
        rho = (problem.loss({m: W[m] + eps * Z[m] for m in W}) - problem.loss({m: W[m] - eps * Z[m] for m in W})) / 2
        for m in W:
            W[m] = W[m] - lr * rho / eps * Z[m]
    return W
