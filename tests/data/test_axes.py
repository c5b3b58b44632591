"""Axes of inputs: what is found from the data, and what a user names."""

import pytest

from attar._src.core.errors import DataError, UnknownName
from attar._src.data.axes import Axes, batch_axes, input_axes, same_axes

#: Two batches of x (batch, time, 4) and a state (2, batch, 8).
BATCHES = [[(5, 7, 4), (2, 5, 8)], [(2, 6, 4), (2, 2, 8)]]
NAMES = ("x", "state")


def test_the_batch_axis_of_a_state_is_the_one_as_long_as_every_batch():
    assert batch_axes(None, NAMES, BATCHES) == (0, 1)
    # Of the second batch alone, axis 0 has the batch's length too.
    assert batch_axes(None, NAMES, BATCHES[1:]) == (0, 0)
    assert batch_axes({"state": (1,)}, NAMES, BATCHES[1:]) == (0, 1)
    assert batch_axes({"x": (1, 0)}, NAMES, [[(7, 5, 4), (1, 5, 8)]]) == (1, 1)


@pytest.mark.parametrize(
    ("dynamic", "varying"),
    [
        (None, [(0, 1), (1,)]),
        ((0, 1), [(0, 1), (1,)]),
        ((1,), [(1,), ()]),
        ({"x": (0, 1)}, [(0, 1), (1,)]),
        ({"x": (0, 1), "state": (1, 2)}, [(0, 1), (1, 2)]),
    ],
)
def test_the_axes_that_vary(dynamic, varying):
    found = input_axes(dynamic, NAMES, (0, 1), BATCHES)
    assert found == (Axes(0, varying[0]), Axes(1, varying[1]))


def test_without_a_difference_only_the_batch_varies():
    assert input_axes(None, NAMES, (0, 1), BATCHES[:1]) == (Axes(0, (0,)), Axes(1, (1,)))
    assert same_axes((0, 1), [3, 1]) == (Axes(0, (0, 1)), Axes(0, (0,)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(5, 7), (3, 4)], r"input 'state' \(3, 4\) has no axis of 5"),
        ([(5, 7), (3, 5, 5)], r"input 'state' \(3, 5, 5\) has 2 axes of 5.*dynamic=\{'state': \(1,\)\}"),
    ],
)
def test_a_state_whose_batch_axis_is_not_clear_is_named(shapes, message):
    with pytest.raises(DataError, match=message):
        batch_axes(None, NAMES, [shapes])


def test_names_and_lengths_that_do_not_fit():
    with pytest.raises(UnknownName, match="no input named 'stat'; did you mean 'state'"):
        batch_axes({"stat": (1,)}, NAMES, BATCHES)
    with pytest.raises(
        DataError, match=r"lengths \[6, 7\] along axis 1, which dynamic=\(0,\) fixes; write dynamic=\(0, 1\)"
    ):
        input_axes((0,), NAMES, (0, 1), BATCHES)
