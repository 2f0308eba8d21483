"""SGD with heavy-ball momentum on the two-sided estimate, in NumPy."""


def run(problem, z, *, lr, eps, steps, momentum=0.9):
    theta, v = dict(problem.theta), dict.fromkeys(problem.theta, 0.0)
    for t in range(steps):
        u = {m: z(x.shape, t, m) for m, x in theta.items()}
        losses = [problem.loss({m: theta[m] + e * u[m] for m in theta}) for e in (eps, -eps)]
        for m in theta:
            v[m] = momentum * v[m] + (losses[0] - losses[1]) / (2 * eps) * u[m]
            theta[m] = theta[m] - lr * v[m]
    return theta
