"""AdaPreLoRA in NumPy, dense: the two halves of a tangent projection in the weighted space, where H is 1."""

import numpy as np


def run(problem, *, lr, steps, beta=0.99, floor=1e-30, damping=1e-2):
    A, B, s, r = dict(problem.A), dict(problem.B), problem.alpha / problem.rank, problem.rank
    R, C = ({m: np.zeros(x[m].shape[axis]) for m in x} for x, axis in ((B, 0), (A, 1)))
    for t in range(1, steps + 1):
        G = problem.gradient({m: s * B[m] @ A[m] for m in A})
        for m in A:
            R[m] = beta * R[m] + (1 - beta) * (G[m] ** 2).mean(axis=1)
            C[m] = beta * C[m] + (1 - beta) * (G[m] ** 2).mean(axis=0)
            R_hat, C_hat = R[m] / (1 - beta**t) + floor, C[m] / (1 - beta**t) + floor
            D_R, D_C = np.sqrt(R_hat / R_hat.mean()), np.sqrt(C_hat)
            left, right = np.diag(D_R**0.5), np.diag(D_C**0.5)
            b, a = left @ B[m], A[m] @ right
            target = np.linalg.inv(left) @ G[m] @ np.linalg.inv(right)
            size = damping * (np.sum(A[m] ** 2.0) + np.sum(B[m] ** 2.0)) / (2 * r)
            inv_a = np.linalg.inv(a @ a.T + size * D_C.mean() * np.eye(r))
            inv_b = np.linalg.inv(b.T @ b + size * D_R.mean() * np.eye(r))
            half_b, half_a = np.eye(len(b)) - b @ inv_b @ b.T / 2, np.eye(a.shape[1]) - a.T @ inv_a @ a / 2
            change_B = np.linalg.inv(left) @ half_b @ target @ a.T @ inv_a / s
            change_A = inv_b @ b.T @ target @ half_a @ np.linalg.inv(right) / s
            A[m] = (A[m] - lr * change_A).astype(A[m].dtype)
            B[m] = (B[m] - lr * change_B).astype(B[m].dtype)
    return {m: (A[m], B[m]) for m in A}
