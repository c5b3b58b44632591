"""Sums of two products in 16 bits: the pairs are those that kernels add, and files without large ones are exact."""

import numpy as np
import pytest
from tests.runtime import pair_order
from tests.runtime.pair_order import convolution, layers, matrix, saturated

from attar._src.core.tensors import Quantized
from attar._src.methods.quantize.pair_sums import fit_pairs
from attar._src.runtime import session as sessions
from attar._src.runtime.accumulator import largest_pairs, may_saturate, neighbours, pair_limit
from attar._src.runtime.engine import saturates
from attar._src.runtime.grid import Grid
from attar._src.runtime.session import Session
from attar._src.runtime.weights import Int8Weight


def maddubs(data, codes):
    """What kernels with ``vpmaddubsw`` compute: products of (pairs, 2), two at a time in 16 bits, then in 32."""
    pairs = (data.astype(np.int32) * codes.astype(np.int32)).sum(-1)
    return int(np.clip(pairs, -(2**15), 2**15 - 1).sum())


@pytest.mark.parametrize("high", [255, 200, 128, 127])
def test_the_limit_is_where_16_bits_end(high):
    limit = pair_limit(high)
    for pair in ([min(limit, 127), limit - min(limit, 127)], [-min(limit, 127), min(limit, 127) - limit]):
        assert maddubs(np.full((1, 2), high), np.array([pair])) == high * sum(pair)
    if limit < 254:
        beyond = np.array([[127, limit + 1 - 127]])
        assert maddubs(np.full((1, 2), high), beyond) < high * (limit + 1)


def test_fitted_weights_are_exact_on_every_input(rng):
    for shape, groups in (((16, 8, 3, 3), 1), ((8, 3, 3, 3), 2), ((20, 33), 1)):
        codes = np.clip(np.rint(rng.normal(size=shape) * 60), -127, 127).astype(np.int8)
        given = pair_order.held(codes)
        fitted, count = fit_pairs(given, 0, pair_limit(255), groups)
        assert count
        saturating = []
        for tensor in (given, fitted):
            pairs = neighbours(tensor.codes, 0, groups)
            # The worst inputs: 255 at codes of one sign, 0 at the others.
            worst = [
                maddubs(data, line) == (data.astype(int) * line).sum()
                for line in pairs
                for data in (255 * (line > 0), 255 * (line < 0))
            ]
            saturating.append(not all(worst))
        assert saturating == [True, False]


def test_the_grid_of_the_input_counts(rng):
    weight = Int8Weight(np.array([[100, 60, 1, 1]], np.int8), np.ones(1, np.float32), None)
    assert may_saturate(weight, Grid(1.0, 0, 0, 255), 0)
    assert not may_saturate(weight, Grid(1.0, 0, 0, 204), 0)
    assert may_saturate(weight, Grid(1.0, 0, 0, 205), 0)
    # Padding writes the zero point.
    assert may_saturate(weight, Grid(1.0, 230, 0, 100), 0)


def test_kernels_add_the_pairs_that_are_told_of():
    """On processors that saturate each kernel loses exactly these sums, on others none."""
    kinds = set()
    for name, codes, groups, lowered, x in layers():
        exact = np.minimum(255.0 * codes.reshape(len(codes), -1).astype(np.int64).sum(1), 255 * 512)
        unsafe = largest_pairs(neighbours(codes, 0, groups)) > pair_limit(255)
        # A single channel is padded to four, so that its neighbours are zeros.
        safe = name.startswith("depthwise") or name.endswith("of 1 channel")
        assert bool(lowered.saturating) == unsafe.any() == (not safe), name
        np.testing.assert_array_equal(saturated(lowered, x, exact), unsafe & saturates(), name)
        kinds.add(bool(unsafe.any()))
    assert kinds == {True, False}


def test_kernels_of_avx2_add_the_pairs_that_are_told_of(run_on_avx2):
    lines = run_on_avx2("-m", "tests.runtime.pair_order").splitlines()
    assert len(lines) == 14
    assert all(": equal, " in line for line in lines), lines
    # Depthwise kernels, and a single channel, whose neighbours are zeros.
    assert sum(": equal, 0 of" in line for line in lines) == 3, lines


def test_slow_kernels_are_asked_for_only_where_a_pair_is_too_large(monkeypatch):
    asked = []
    real = sessions.Engine
    monkeypatch.setattr(sessions, "Engine", lambda *args, exact, **more: asked.append(exact) or real(*args, **more))
    scale, scheme = np.ones(1, np.float32), pair_order.held(np.zeros((1, 2), np.int8)).scheme
    for codes in ([[127, 1] * 8], [[127, 2] * 8]):
        weight = Quantized(np.array(codes, np.int8), scale, scheme)
        Session(pair_order.matrix_file(weight.codes, True))
    Session(pair_order.convolution_file(np.full((16, 1, 3, 3), 127, np.int8), 16, (16, 4, 4)))
    assert asked == [False, True, False]


def test_fitted_layers_run_as_they_would_in_exact_sums(rng):
    for codes, groups, data in (((16, 8, 3, 3), 1, (8, 5, 5)), ((16, 4, 2, 2), 2, (8, 5, 5))):
        given = pair_order.held(np.clip(np.rint(rng.normal(size=codes) * 60), -127, 127).astype(np.int8))
        fitted, _ = fit_pairs(given, 0, pair_limit(255), groups)
        lowered, _ = convolution(fitted.codes, groups, data)
        assert not lowered.saturating
        assert convolution(given.codes, groups, data)[0].saturating
    lowered, x = matrix(np.full((40, 64), 64, np.int8), 3, True)
    assert not lowered.saturating
    assert not saturated(lowered, x, np.full(40, 255.0 * 64 * 64)).any()
