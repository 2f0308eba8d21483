"""MeZO, Algorithm 1 of arXiv:2305.17333, in NumPy: perturb by +eps, -2 eps, +eps, then step."""


def run(problem, z, *, lr, eps, steps):
    theta = dict(problem.theta)

    def perturb(scale, t):
        for name in theta:
            theta[name] = theta[name] + scale * z(theta[name].shape, t, name)

    for t in range(steps):
        perturb(eps, t)
        loss_plus = problem.loss(theta)
        perturb(-2 * eps, t)
        loss_minus = problem.loss(theta)
        perturb(eps, t)
        projected_grad = (loss_plus - loss_minus) / (2 * eps)
        for name in theta:
            theta[name] = theta[name] - lr * projected_grad * z(theta[name].shape, t, name)
    return theta
