"""Full-rank LoRA-ZO in NumPy: all of A and B are perturbed at once, dW = (alpha / r) B A."""


def run(problem, z, *, lr, eps, steps):
    A, B, s = dict(problem.A), dict(problem.B), problem.alpha / problem.rank

    def loss(zA, zB, shift):
        return problem.loss({m: s * (B[m] + shift * zB[m]) @ (A[m] + shift * zA[m]) for m in A})

    for t in range(steps):
        zA = {m: z(A[m].shape, t, m, "A") for m in A}
        zB = {m: z(B[m].shape, t, m, "B") for m in B}
        g = (loss(zA, zB, eps) - loss(zA, zB, -eps)) / (2 * eps)
        for m in A:
            A[m] = A[m] - lr * g * zA[m]
            B[m] = B[m] - lr * g * zB[m]
    return {m: (A[m], B[m]) for m in A}
