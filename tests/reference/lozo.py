"""LOZO, Algorithm 1 of arXiv:2410.07698, in NumPy, with the paper's epsilon = eps / sqrt(r) and alpha = lr."""


def run(problem, z, *, lr, eps, steps, rank=2, interval=50):
    W, epsilon = dict(problem.theta), eps / rank**0.5
    for t in range(steps):
        U = {m: z((W[m].shape[0], rank), t, m, "U") for m in W}
        V = {m: z((W[m].shape[1], rank), t // interval, m, "V") for m in W}
        plus = problem.loss({m: W[m] + epsilon * U[m] @ V[m].T for m in W})
        minus = problem.loss({m: W[m] - epsilon * U[m] @ V[m].T for m in W})
        c = (plus - minus) / (2 * epsilon)
        for m in W:
            W[m] = W[m] - lr * c * U[m] @ V[m].T / rank
    return W
