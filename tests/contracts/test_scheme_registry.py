"""What every scheme promises; parametrised over the registry."""

from itertools import combinations

import numpy as np
import pytest
import torch

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.methods.quantize.ptq.registry import SCHEMES, SOLVERS
from attar._src.methods.quantize.ptq.schemes import scales
from attar._src.methods.quantize.ptq.schemes.codebook import best_whole_levels
from attar._src.methods.quantize.ptq.schemes.scales import best_scales, nearest_levels
from attar._src.model.statistics import InputHessian
from attar._src.model.weights import Window

#: Schemes whose levels are the same for every weight.
FIXED = ("binary", "ternary", "apot")
GRANULARITIES = (PerTensor(), PerChannel(), PerGroup(size=9), PerBucket(size=16))
CASES = [(name, bits) for name in SCHEMES for bits in SCHEMES[name].widths]


def seen(weight):
    """Correlated inputs of a linear layer with this weight."""
    hessian = InputHessian(Window(1, weight[0].size))
    rng = np.random.default_rng(1)
    length = weight[0].size
    hessian.add(torch.from_numpy(rng.normal(0.5, 1, (50, length)) @ rng.normal(size=(length, length))))
    return {InputHessian: hessian}


def output_error(weight, tensor, inputs):
    left = (weight - tensor.dense()).astype(np.float64)
    return float(np.einsum("oi,ij,oj->", left, inputs[InputHessian].matrix[0], left))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("name", "bits"), [case for case in CASES if case[0] in FIXED])
def test_weights_on_the_levels_survive_exactly(name, bits, granularity):
    """Guards against scales or codes that miss an answer without error."""
    levels = SCHEMES[name].levels(np.zeros(0), np.zeros(0, np.int64), np.zeros(0), bits, 0)
    codes = np.random.default_rng(bits).choice(levels, (8, 36)).astype(np.float32)
    index = np.broadcast_to(granularity.index(codes.shape), codes.shape)
    for group in range(granularity.count(codes.shape)):
        places = np.argwhere(index == group)
        for level, place in zip(levels, places, strict=False):
            codes[tuple(place)] = level
    weight = codes * np.float32(0.25)
    scheme = Scheme(bits=bits, granularity=granularity)
    assert np.array_equal(SCHEMES[name].solve(weight, scheme).dense(), weight)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("name", "bits"), CASES)
def test_few_whole_levels_zeros_stay_and_equal_weights_get_equal_codes(name, bits, granularity):
    """Guards against codes beside the levels, lost zeros of pruned weights, and results that change between runs."""
    weight = np.random.default_rng(0).normal(size=(6, 18)).astype(np.float32)
    weight[1, 3] = weight[4, 9:12] = 0
    scheme = Scheme(bits=bits, granularity=granularity)
    one, other = (SCHEMES[name].solve(weight.copy(), scheme, inputs) for inputs in (None, None))
    assert (one.codes.tobytes(), one.scale.tobytes()) == (other.codes.tobytes(), other.scale.tobytes())
    assert (one.dense()[weight == 0] == 0).all()
    assert np.unique(one.codes[weight != 0]).size <= 2**bits
    assert np.abs(one.codes.astype(int)).max() <= 63, "sums of two products must fit 16 bits"


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_what_a_weight_multiplies_is_seen(name, bits):
    """Guards against feedback that makes the output of the layer worse than the weight alone does."""
    weight = np.random.default_rng(2).normal(size=(8, 24)).astype(np.float32)
    weight[0, 0] = 0
    inputs, scheme = seen(weight), Scheme(bits=bits)
    found, blind = (SCHEMES[name].solve(weight, scheme, given) for given in (inputs, None))
    assert output_error(weight, found, inputs) <= output_error(weight, blind, inputs) * 1.001
    assert found.dense()[0, 0] == 0
    again = SCHEMES[name].solve(weight, scheme, seen(weight))
    assert again.codes.tobytes() == found.codes.tobytes()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("name", "bits"), [(name, SCHEMES[name].widths[-1]) for name in SCHEMES])
def test_groups_and_powers_of_two_with_inputs(name, bits, granularity):
    """Guards against scales that are fitted to the codes of others, and against scales between powers of two."""
    weight = np.random.default_rng(3).normal(size=(4, 18)).astype(np.float32)
    inputs = seen(weight)
    found = SCHEMES[name].solve(weight, Scheme(bits=bits, granularity=granularity), inputs)
    blind = SCHEMES[name].solve(weight, Scheme(bits=bits, granularity=granularity))
    assert output_error(weight, found, inputs) <= output_error(weight, blind, inputs) * 1.001
    two = SCHEMES[name].solve(weight, Scheme(bits=bits, granularity=granularity, power_of_two=True), inputs)
    assert (np.frexp(two.scale)[0] == 0.5).all()


@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(size=16)])
@pytest.mark.parametrize("name", [name for name in SCHEMES if len(SCHEMES[name].widths) > 1])
def test_with_powers_of_two_more_bits_lose_less(name, granularity):
    """Guards against levels fitted to scales that are then rounded away from them, which clips two fifths."""
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(32, 64)) * np.exp(rng.normal(size=(32, 1)))).astype(np.float32)
    inputs, lost, seen_lost, grids = seen(weight), [], [], []
    for bits in SCHEMES[name].widths:
        scheme = Scheme(bits=bits, granularity=granularity, power_of_two=True)
        lost.append(((SCHEMES[name].solve(weight, scheme).dense() - weight) ** 2).sum())
        seen_lost.append(output_error(weight, SCHEMES[name].solve(weight, scheme, inputs), inputs))
        grids.append(((SOLVERS["mse"].solve(weight, scheme).dense() - weight) ** 2).sum())
    assert sorted(lost, reverse=True) == lost
    assert sorted(seen_lost, reverse=True) == seen_lost
    if name not in FIXED:
        assert all(own <= grid for own, grid in zip(lost, grids, strict=True))


@pytest.mark.parametrize("name", FIXED)
def test_of_the_powers_of_two_the_better_is_taken(name):
    """Guards against the nearest in logarithms, which here loses more."""
    levels = SCHEMES[name].levels(np.zeros(0), np.zeros(0, np.int64), np.zeros(0), SCHEMES[name].widths[0], 0)
    weight = 0.72 * levels[np.random.default_rng(0).integers(0, len(levels), (1, 200))].astype(np.float32)
    scheme = Scheme(bits=SCHEMES[name].widths[0], power_of_two=True)
    found = ((SCHEMES[name].solve(weight, scheme).dense() - weight) ** 2).sum()
    for scale in (0.25, 0.5, 1.0, 2.0):
        assert found <= ((scale * nearest_levels(weight / scale, levels) - weight) ** 2).sum() * (1 + 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(SCHEMES))
def test_weights_that_are_not_finite_are_refused(name, value):
    with pytest.raises(SpecError, match="NaN or infinities"):
        SCHEMES[name].solve(np.array([[1.0, value]], np.float32), Scheme(bits=SCHEMES[name].widths[0]))


@pytest.mark.parametrize(("name", "bits"), CASES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 9), (5, 1), (1, 1), (2, 3, 3, 3)])
def test_odd_shapes_constants_and_dead_channels(name, bits, shape):
    """Guards against scales of zero, of NaN, or of nothing."""
    scheme = Scheme(bits=bits)
    constant = SCHEMES[name].solve(np.full(shape, -0.75, np.float32), scheme)
    assert constant.shape == shape
    np.testing.assert_allclose(constant.dense(), -0.75, rtol=0.02)
    weight = np.zeros(shape, np.float32)
    weight[1:] = 1.5
    found = SCHEMES[name].solve(weight, scheme)
    assert (found.scale > 0).all()
    np.testing.assert_allclose(found.dense(), weight, rtol=0.02)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_other_bits_are_refused_with_those_there_are(name):
    with pytest.raises(SpecError, match=rf"scheme '{name}' has codes of .* bits, got 8"):
        SCHEMES[name].solve(np.ones((2, 2), np.float32), Scheme(bits=8))


@pytest.mark.parametrize("levels", [[-1, 1], [-1, 0, 1], [-3, -1, 0, 2], [-10, -8, -4, 0, 1, 5]])
def test_no_scale_is_better_than_the_best(levels):
    """Guards the sorted pass: against 20,000 scales tried one by one."""
    rng, levels = np.random.default_rng(0), np.array(levels, float)
    values, index, importance = rng.normal(size=200), rng.integers(0, 3, 200), rng.random(200)
    found = best_scales(values, index, levels, importance, 3)
    for group in range(3):
        w, h = values[index == group], importance[index == group]
        errors = [
            h @ (w - scale * nearest_levels(w / scale, levels)) ** 2
            for scale in (found[group], *np.geomspace(1e-2, 4, 20_000))
        ]
        assert errors[0] <= min(errors[1:]) * (1 + 1e-9)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_no_levels_are_better_than_the_best(number):
    """Guards the dynamic programming: against all sets of levels."""
    rng = np.random.default_rng(number)
    values, importance = rng.normal(size=30) * 3, rng.random(30)

    def error(levels):
        return float(importance @ (values - nearest_levels(values, np.asarray(levels, float))) ** 2)

    found = best_whole_levels(values, importance, number, most=7)
    assert error(found) == pytest.approx(min(error(each) for each in combinations(range(-7, 8), number)))


def test_the_exact_threshold_is_no_worse_than_that_of_the_paper():
    """Li, Zhang, Liu 2016 take 0.7 times the mean of |w| for the threshold."""
    weight = np.random.default_rng(0).standard_t(3, size=(4, 500)).astype(np.float32)
    found = SCHEMES["ternary"].solve(weight, Scheme(bits=2)).dense()
    above = np.abs(weight) > 0.7 * np.abs(weight).mean(1, keepdims=True)
    scale = (np.abs(weight) * above).sum(1, keepdims=True) / above.sum(1, keepdims=True)
    paper = np.sign(weight) * above * scale
    assert ((found - weight) ** 2).sum() <= ((paper - weight) ** 2).sum()


def test_binary_is_the_sign_and_the_mean():
    weight = np.array([[1.0, -0.5, 0.25, -0.25]], np.float32)
    assert SCHEMES["binary"].solve(weight, Scheme(bits=1)).dense().tolist() == [[0.5, -0.5, 0.5, -0.5]]


def test_scales_found_in_parts_are_the_same(monkeypatch):
    """Guards the parts in which large tensors are sorted."""
    rng, levels = np.random.default_rng(0), np.array([-2.0, -1.0, 0.0, 1.0, 3.0])
    given = rng.normal(size=300), rng.integers(0, 7, 300), levels, rng.random(300), 7
    whole = best_scales(*given)
    monkeypatch.setattr(scales, "_EVENTS", 400)
    np.testing.assert_allclose(best_scales(*given), whole, rtol=1e-12)
