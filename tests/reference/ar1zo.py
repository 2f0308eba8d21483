"""AR1-ZO (arXiv:2605.19767, as its abstract reads) in NumPy: one atom per step, dW = (gamma / r) B A, gamma = alpha r.

The queried atom moves dW by s [+-eps (z_b a_k^T + b_k z_a^T) + eps^2 z_b z_a^T], and all else stays.
"""

import numpy as np


def run(problem, z, *, lr, eps, steps):
    A = {m: x.copy() for m, x in problem.A.items()}
    B = {m: x.copy() for m, x in problem.B.items()}
    r, gamma = problem.rank, problem.alpha * problem.rank
    s = gamma / r
    for t in range(steps):
        k = t % r
        z_a = {m: z((A[m].shape[1],), t, m, "A") for m in A}
        z_b = {m: z((B[m].shape[0],), t, m, "B") for m in B}

        def loss(e, k=k, z_a=z_a, z_b=z_b):
            first = {m: np.outer(z_b[m], A[m][k]) + np.outer(B[m][:, k], z_a[m]) for m in A}
            second = {m: np.outer(z_b[m], z_a[m]) for m in A}
            return problem.loss({m: s * (B[m] @ A[m] + e * first[m] + e**2 * second[m]) for m in A})

        g = (loss(eps) - loss(-eps)) / (2 * eps)
        for m in A:
            A[m][k] -= lr * g * z_a[m]
            B[m][:, k] -= lr * g * z_b[m]
    return {m: (A[m], B[m]) for m in A}
