"""Guards against a C loop that differs from what is documented, and against levels that depend on others."""

import numpy as np
import pytest
from tests.methods.test_gptq import correlated, hessian_of

from attar._src.core.scheme import PerGroup, Scheme
from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelGrid
from attar._src.methods.quantize.ptq.solvers import column_blocks
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid
from attar._src.methods.quantize.ptq.solvers.columns import HessianFactor, descend, round_columns
from attar._src.methods.quantize.ptq.solvers.gptq import Gptq
from attar._src.model.statistics import InputHessian

needs_native = pytest.mark.skipif(not column_blocks.IN_C, reason="the extension is not built")


@needs_native
@pytest.mark.parametrize("seed", range(12))
def test_c_gives_the_bits_of_numpy(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    groups, length, rows = (int(each) for each in rng.integers(1, (4, 150, 70 if seed % 4 else 700)))
    weight = rng.normal(size=(groups, length, rows))
    weight[rng.random(weight.shape) < 0.1] = 0
    x = rng.normal(size=(groups, 3 * length, length))
    matrix = x.mT @ x + 0.01 * np.eye(length)
    low, high = ((-7, 7), (0, 15), (-1, 0))[seed % 3]
    zero = np.zeros(weight.shape) if low < 0 else rng.integers(low, high + 1, weight.shape).astype(np.float64)
    prices = rng.exponential(0.5 * length, high - low + 1) if seed % 2 else None
    # Scales of each element, or of all columns of a row.
    own = slice(None) if seed % 2 else slice(1)
    grid = CodeGrid(rng.uniform(0.05, 0.5, weight.shape)[:, own], zero[:, own], low, high, prices)

    def every():
        codes, costs = round_columns(weight, grid, HessianFactor.of(matrix))
        return codes, costs, descend(weight, codes, grid, matrix, 4)

    native = every()
    monkeypatch.setattr(column_blocks, "IN_C", False)
    for one, other in zip(native, every(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert not np.array_equal(native[0], native[2]) or length < 4


@needs_native
def test_c_refuses_codes_that_have_no_price_and_arrays_of_another_size():
    """Guards against reading beside an array."""
    one, square = np.ones((1, 2, 3)), np.ones((1, 2, 2))
    call = column_blocks._columns.descend_block
    good = [1, 2, 3, -1.0, 1.0, np.zeros(3), one, one.copy(), one.copy(), square, one, one * 0, one * 0, one * 0]
    assert call(*good) in (True, False)
    for place, bad in ((5, np.zeros(2)), (9, one), (12, one * 5), (12, one * np.nan), (11, one * 2), (8, one[:, :1])):
        with pytest.raises(ValueError, match="columns"):
            call(*good[:place], bad, *good[place + 1 :])
    with pytest.raises((ValueError, BufferError)):
        call(*good[:6], np.ones((1, 3, 2)).mT, *good[7:])
    with pytest.raises(TypeError):
        call(*good[:-1])
    for place in (0, 1, 2):
        with pytest.raises(ValueError, match="columns"):
            call(*good[:place], -1, *good[place + 1 :])


def test_grids_of_levels_are_rounded_in_numpy():
    weight = np.random.default_rng(0).normal(size=(1, 5, 4))
    grid = LevelGrid.of(np.full(weight.shape, 0.5), np.array([-4.0, -1, 0, 1, 4]))
    codes, _ = round_columns(weight, grid, HessianFactor.of(np.eye(5)[None]))
    assert set(np.unique(codes)) <= {-4, -1, 0, 1, 4}
    assert np.array_equal(codes, grid.nearest(weight, slice(None)))


@pytest.mark.parametrize("granularity", [None, PerGroup(size=8)], ids=str)
def test_a_weight_solved_beside_others_is_that_solved_alone(granularity):
    weight = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32)
    weight[np.abs(weight) < 0.3] = 0
    seen = {InputHessian: hessian_of(correlated(300, 40))}
    solvers = [Gptq(), Gptq(1e-5), Gptq(1e-4)]
    for inputs in (seen, None):
        scheme = Scheme(bits=4, symmetric=False, **({"granularity": granularity} if granularity else {}))
        together = Gptq.solve_each(solvers, weight, scheme, inputs)
        for solver, made in zip(solvers, together, strict=True):
            alone = solver.solve(weight, scheme, inputs)
            assert np.array_equal(made.codes, alone.codes)
            assert np.array_equal(made.scale, alone.scale)
            assert np.array_equal(made.zero_point, alone.zero_point)
        assert len({made.codes.tobytes() for made in together}) == 3
