"""What every observer promises; parametrised over the registry."""

import numpy as np
import pytest
import torch

from attar._src.core.errors import SpecError
from attar._src.methods.quantize.ptq.registry import OBSERVERS
from attar._src.model.statistics import Range


def statistic(kind, values):
    """A statistic of values, after those that it depends on."""
    made = kind(*(statistic(each, values) for each in kind.after))
    made.add(torch.from_numpy(np.asarray(values, np.float32)))
    return made


def seen(observer, values):
    return statistic(observer.statistic, values)


@pytest.fixture(params=list(OBSERVERS))
def observer(request):
    return OBSERVERS[request.param]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_range_lies_within_what_was_seen(observer, bits):
    values = np.random.default_rng(0).normal(1, 2, 100_000).astype(np.float32)
    low, high = observer.range(seen(observer, values), bits)
    assert values.min() <= low < high <= values.max()


@pytest.mark.parametrize("bits", [4, 8])
def test_uniform_values_are_not_clipped(observer, bits):
    low, high = observer.range(seen(observer, np.linspace(0, 6, 50_000)), bits)
    assert low == pytest.approx(0, abs=0.01)
    assert high == pytest.approx(6, rel=0.1)


def test_a_constant(observer):
    low, high = observer.range(seen(observer, np.full(10, 2.0)), 8)
    assert 0 <= low <= high <= 2.0
    assert high > 0


def test_minmax_keeps_an_outlier_that_the_others_cut():
    values = np.append(np.random.default_rng(0).normal(size=1_000_000), 1000.0)
    ranges = {name: OBSERVERS[name].range(seen(OBSERVERS[name], values), 8)[1] for name in OBSERVERS}
    assert ranges["minmax"] == 1000.0
    assert ranges["percentile"] < 20
    assert ranges["mse"] < 1000
    assert ranges["kl"] < 1000


def test_kl_cuts_a_long_tail_more_than_the_squared_error_does():
    """Guards the divergence: of values with a long tail at 8 bits the body is kept."""
    values = np.random.default_rng(0).standard_t(3, size=500_000)
    high = {name: OBSERVERS[name].range(seen(OBSERVERS[name], values), 8)[1] for name in ("kl", "mse", "minmax")}
    assert high["kl"] < 0.5 * high["minmax"]
    assert np.quantile(values, 0.995) < high["kl"]


def test_zeros_do_not_move_the_range_of_kl():
    """Guards against a spike of zeros, as behind ReLU, that is most of the distribution."""
    values = np.abs(np.random.default_rng(0).normal(size=200_000))
    ranges = [
        OBSERVERS["kl"].range(seen(OBSERVERS["kl"], each), 8) for each in (values, np.append(values, np.zeros(800_000)))
    ]
    assert ranges[0] == pytest.approx(ranges[1], rel=0.1)


def test_minmax_sees_the_range_alone():
    assert OBSERVERS["minmax"].statistic is Range


def test_an_observer_without_the_base_class_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Wide:\n    name = 'wide'\n    def range(self, seen, bits):\n        return -1, 1\n")
    with pytest.raises(SpecError, match=r"of class Wide; give a subclass of attar\.extend\.Observer"):
        OBSERVERS[f"{path}:Wide"]


@pytest.mark.parametrize(("bits", "same"), [(10, "percentile"), (8, "percentile"), (7, "mse"), (4, "mse")])
def test_auto_is_percentile_with_8_bits_and_mse_with_fewer(bits, same):
    # The kind: a range that is right for 8 bits, and was taken for 4 too.
    values = np.random.default_rng(0).normal(size=400_000) ** 3
    ranges = {
        name: OBSERVERS[name].range(seen(OBSERVERS[name], values), bits) for name in ("auto", "percentile", "mse")
    }
    assert ranges["auto"] == ranges[same]
    assert ranges["percentile"] != ranges["mse"]
