"""Naive atomwise LoRA-ZO in NumPy, dW = (alpha / r) sum_k b_k a_k^T: step t moves pair t mod r."""

import numpy as np


def run(problem, z, *, lr, eps, steps):
    A, B, r = problem.A, problem.B, problem.rank
    a = {m: [A[m][k] for k in range(r)] for m in A}
    b = {m: [B[m][:, k] for k in range(r)] for m in B}
    s = problem.alpha / r

    def loss():
        return problem.loss({m: s * sum(np.outer(b[m][k], a[m][k]) for k in range(r)) for m in a})

    for t in range(steps):
        k = t % r
        before = {m: (a[m][k], b[m][k]) for m in a}
        direction = {m: (z(a[m][k].shape, t, m, "A"), z(b[m][k].shape, t, m, "B")) for m in a}
        losses = []
        for e in (eps, -eps):
            for m, (z_a, z_b) in direction.items():
                a[m][k], b[m][k] = before[m][0] + e * z_a, before[m][1] + e * z_b
            losses.append(loss())
        g = (losses[0] - losses[1]) / (2 * eps)
        for m, (z_a, z_b) in direction.items():
            a[m][k], b[m][k] = before[m][0] - lr * g * z_a, before[m][1] - lr * g * z_b
    return {m: (np.stack(a[m]), np.stack(b[m], axis=1)) for m in a}
