"""AdamW, Algorithm 2 of arXiv:1711.05101, in NumPy, on LoRA's factors: beta 0.9 and 0.999, epsilon 1e-8, no decay."""

import numpy as np


def run(problem, *, lr, steps):
    theta, s = [dict(problem.A), dict(problem.B)], problem.alpha / problem.rank
    m, v = ([{name: np.zeros(x.shape) for name, x in half.items()} for half in theta] for _ in range(2))
    for t in range(1, steps + 1):
        A, B = theta
        G = problem.gradient({name: s * B[name] @ A[name] for name in A})
        gradients = {name: s * B[name].T @ G[name] for name in A}, {name: s * G[name] @ A[name].T for name in A}
        for half, g, m_half, v_half in zip(theta, gradients, m, v, strict=True):
            for name in half:
                m_half[name] = 0.9 * m_half[name] + 0.1 * g[name]
                v_half[name] = 0.999 * v_half[name] + 0.001 * g[name] ** 2
                m_hat, v_hat = m_half[name] / (1 - 0.9**t), v_half[name] / (1 - 0.999**t)
                half[name] = (half[name] - lr * m_hat / (np.sqrt(v_hat) + 1e-8)).astype(half[name].dtype)
    return {name: (theta[0][name], theta[1][name]) for name in theta[0]}
