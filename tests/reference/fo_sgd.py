"""LoRA by gradient descent in NumPy: G = dl/dW, and dW = s B A gives dl/dA = s B'G and dl/dB = s G A'."""


def run(problem, *, lr, steps):
    A, B, s = dict(problem.A), dict(problem.B), problem.alpha / problem.rank
    for _ in range(steps):
        G = problem.gradient({m: s * B[m] @ A[m] for m in A})
        for m in A:
            change_A, change_B = lr * s * B[m].T @ G[m], lr * s * G[m] @ A[m].T
            A[m] = (A[m] - change_A).astype(A[m].dtype)
            B[m] = (B[m] - change_B).astype(B[m].dtype)
    return {m: (A[m], B[m]) for m in A}
