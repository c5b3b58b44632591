"""Layerwise problems whose loss is a known function of the sum of the layers' errors."""

from dataclasses import dataclass

import numpy as np

from attar._src.methods.allocate.choose import by_name
from attar._src.search.layerwise.problem import LayerFacts, LayerwiseProblem


@dataclass(frozen=True)
class Figures:
    file_bytes: float
    drop: float
    ms: float | None = None
    ruined: bool = False
    others: float | None = None


def additive(seed=0, layers=6, bits=(2, 4, 8), sparsity=(0.5, 0.0), *, measured=True):
    """Layers of very different size and sensitivity."""
    draw = np.random.default_rng(seed)
    elements = 2 ** np.arange(6, 6 + layers)
    sensitive = np.exp(draw.normal(0, 1.5, layers))
    facts = [LayerFacts(f"l{i}", 8, 8, 3, 1, 64, int(count)) for i, count in enumerate(elements)]
    choices = [(b, s) for b in bits for s in sparsity]
    costs = {fact.name: {(b, s): fact.elements * b * (1 - 0.8 * s) / 8 for b, s in choices} for fact in facts}
    errors = {
        fact.name: {(b, s): float(scale * (4.0**-b + 0.05 * s**3)) for b, s in choices}
        for fact, scale in zip(facts, sensitive, strict=True)
    }
    return LayerwiseProblem(facts, {"bits": bits, "sparsity": sparsity}, costs, 100.0, errors if measured else None)


def figures(problem, point):
    """Bytes by the costs, and a drop of 10 points for each unit of error."""
    error = sum(problem.errors[name][choice] for name, choice in problem.chosen(point).items())
    return Figures(problem.cost(point), 10 * error)


def best_of_all(problem, goal):
    """The fewest bytes that hold, among the optima of 25 budgets."""
    found = np.inf
    for most in np.linspace(problem.smallest, problem.largest, 25):
        levels = by_name(problem.errors, problem.costs, most - problem.fixed)
        if levels is not None:
            seen = figures(problem, problem.point(levels))
            found = min(found, seen.file_bytes) if goal.holds(seen) else found
    return found
