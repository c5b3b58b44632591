"""What every observer promises; parametrised over the registry."""

import numpy as np
import pytest

from attar._src.methods.quantize.ptq.observer import BINS, Seen
from attar._src.methods.quantize.ptq.registry import OBSERVERS


def seen(values):
    counts, _ = np.histogram(values, BINS, (values.min(), values.max()))
    return Seen(float(values.min()), float(values.max()), counts)


@pytest.fixture(params=list(OBSERVERS))
def observer(request):
    return OBSERVERS[request.param]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_range_lies_within_what_was_seen(observer, bits):
    values = np.random.default_rng(0).normal(1, 2, 100_000)
    low, high = observer.range(seen(values), bits)
    assert values.min() <= low < high <= values.max()


@pytest.mark.parametrize("bits", [4, 8])
def test_uniform_values_are_not_clipped(observer, bits):
    low, high = observer.range(seen(np.linspace(0, 6, 50_000)), bits)
    assert low == pytest.approx(0, abs=0.01)
    assert high == pytest.approx(6, rel=0.1)


def test_a_constant(observer):
    counts = np.zeros(BINS, np.int64)
    counts[0] = 10
    low, high = observer.range(Seen(2.0, 2.0, counts), 8)
    assert 0 <= low <= high <= 2.0
    assert high > 0


def test_minmax_keeps_an_outlier_that_the_others_cut():
    values = np.append(np.random.default_rng(0).normal(size=1_000_000), 1000.0)
    ranges = {name: OBSERVERS[name].range(seen(values), 8)[1] for name in OBSERVERS}
    assert ranges["minmax"] == 1000.0
    assert ranges["percentile"] < 20
    assert ranges["mse"] < 1000
