"""What every registered metric owes."""

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.measure.metric import METRICS

ALL = pytest.mark.parametrize("name", tuple(METRICS))
#: Outputs and targets each metric is for, alike, then as far apart as can be.
CASES = {
    "accuracy": (np.eye(4)[[0, 1, 2]], np.array([0, 1, 2]), np.array([3, 3, 3])),
    "binary_accuracy": (np.array([[2.0, -1], [-3, 4]]), np.array([[1, 0], [0, 1]]), np.array([[0, 1], [1, 0]])),
    "f1": (np.array([[2.0], [-1], [3]]), np.array([1, 0, 1]), np.array([0, 1, 0])),
    "mean_squared_error": (np.zeros((3, 1)), np.zeros(3), np.full(3, 9.0)),
}


@ALL
def test_it_says_what_it_is_for_and_which_way_is_better(name):
    text = " ".join((type(METRICS[name]).__doc__ or "").split())
    assert f"``{name}``" in text
    assert "larger is better" in text or "smaller is better" in text


@ALL
def test_it_gives_one_number_that_prefers_what_is_right(name):
    outputs, right, wrong = CASES[name]
    best, worst = METRICS[name](outputs, right), METRICS[name](outputs, wrong)
    assert isinstance(best, float)
    assert (best > worst) == ("larger is better" in " ".join(type(METRICS[name]).__doc__.split()))


@ALL
def test_it_does_not_change_what_it_is_given(name):
    outputs, right, _ = CASES[name]
    before = outputs.copy(), right.copy()
    METRICS[name](outputs, right)
    np.testing.assert_array_equal(outputs, before[0])
    np.testing.assert_array_equal(right, before[1])


@ALL
def test_it_refuses_what_does_not_fit(name):
    with pytest.raises(DataError):
        METRICS[name](np.zeros((3, 4)), np.zeros(5))
