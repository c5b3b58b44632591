"""The objectives as formulas, in NumPy and float64, position by position: written apart from what they are to judge."""

import numpy as np


def probabilities(z, temperature=1.0):
    e = np.exp((z - z.max(-1, keepdims=True)) / temperature)
    return e / e.sum(-1, keepdims=True)


def divergence(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def cross_entropy(z, t, y):
    return np.mean([-np.log(probabilities(row)[label]) for row, label in zip(z, y, strict=True)])


def kl(z, t, y, temperature):
    return temperature**2 * np.mean([divergence(*both) for both in softened(t, z, temperature)])


def reverse_kl(z, t, y, temperature):
    return temperature**2 * np.mean([divergence(*both) for both in softened(z, t, temperature)])


def soft_cross_entropy(z, t, y, temperature):
    return temperature**2 * np.mean([-np.sum(p * np.log(q)) for p, q in softened(t, z, temperature)])


def binary_cross_entropy(z, t, y):
    yes = 1 / (1 + np.exp(-z))
    return np.mean(np.where(y == 1, -np.log(yes), -np.log(1 - yes)))


def binary_kl(z, t, y, temperature):
    yes, taught = (1 / (1 + np.exp(-each.reshape(-1) / temperature)) for each in (z, t))
    pairs = zip(yes, taught, strict=True)
    return temperature**2 * np.mean([divergence([p, 1 - p], [q, 1 - q]) for q, p in pairs])


def mse_logits(z, t, y):
    return np.mean([np.sum((row - other) ** 2) / len(row) for row, other in zip(z, t, strict=True)])


def other_outputs(z, t, y):
    z, t = (each.reshape(-1, each.shape[-1]) for each in (z, t))
    return np.sum((z - t) ** 2) / np.sum((t - t.mean(0)) ** 2)


def dkd(z, t, y, temperature, alpha, beta):
    total = 0.0
    for (p, q), label in zip(softened(t, z, temperature), y, strict=True):
        binary = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest, other = np.delete(p, label), np.delete(q, label)
        total += alpha * binary + beta * divergence(rest / rest.sum(), other / other.sum())
    return temperature**2 * total / len(z)


def dist(z, t, y, temperature, beta, gamma):
    p, q = probabilities(t, temperature), probabilities(z, temperature)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return temperature**2 * (beta * rows + gamma * columns)


def hint(student, teacher, weight, bias):
    """Of maps ``(n, c, h, w)``; the projector as a 1x1 convolution."""
    guided = np.einsum("oc,nchw->nohw", weight, student) + bias[:, None, None]
    return np.mean([0.5 * np.sum((a - b) ** 2) / b.size for a, b in zip(guided, teacher, strict=True)])


def attention(student, teacher):
    """Of maps ``(n, c, h, w)``."""
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        maps = [np.sum(values**2, 0).reshape(-1) for values in (a, b)]
        total += np.linalg.norm(maps[0] / np.linalg.norm(maps[0]) - maps[1] / np.linalg.norm(maps[1]))
    return total / len(student)


def softened(one, other, temperature):
    return list(zip(probabilities(one, temperature), probabilities(other, temperature), strict=True))
