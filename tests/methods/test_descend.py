import numpy as np

from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid
from attar._src.methods.quantize.ptq.solvers.columns import descend


def test_descending_keeps_the_best_of_all_codes():
    """Guards against a code that is left for a dearer one: the cheapest may be no neighbour of the nearest."""
    generator = np.random.default_rng(0)
    weight, matrix = generator.normal(size=(1, 1, 200)), np.full((1, 1, 1), 40.0)
    prices = generator.exponential(20.0, size=15)
    grid = CodeGrid(np.full(weight.shape, 0.3), np.zeros(weight.shape), -7, 7, prices)
    every = np.arange(-7.0, 8)
    costs = 40 * (weight[0, 0, :, None] - 0.3 * every) ** 2 + prices
    best = every[costs.argmin(1)].reshape(weight.shape)
    nearest = grid.nearest(weight, slice(None))
    assert (np.abs(best - nearest) > 1).any()
    assert np.array_equal(descend(weight, best, grid, matrix, 3), best)
