"""CalibrationInputs whose batch is not axis 0 of every input."""

import torch

from attar._src.work.calibration_inputs import CalibrationInputs


def inputs():
    """Two batches of x (batch, time, 2) and a state (1, batch, 3)."""
    batches = [(torch.full((n, steps, 2), float(n)), torch.full((1, n, 3), float(n))) for n, steps in ((3, 1), (2, 4))]
    return CalibrationInputs(tuple(batches), ("x", "h"), (0, 1))


def test_examples_are_counted_and_cut_along_their_axes():
    assert inputs().examples == 5
    assert [[tuple(x.shape) for x in batch] for batch in inputs().first(4, cut=True).batches] == [
        [(3, 1, 2), (1, 3, 3)],
        [(1, 4, 2), (1, 1, 3)],
    ]
    assert len(inputs().first(4).batches) == 1
    assert [tuple(x.shape) for x in inputs().of_one_size().batches[0]] == [(3, 1, 2), (1, 3, 3)]


def test_an_example_is_long_along_the_axes_that_vary():
    assert tuple(inputs().example(2)[0].shape) == (2, 1, 2)
    assert [tuple(x.shape) for x in inputs().example(2, [(0, 1), (1,)])] == [(2, 4, 2), (1, 2, 3)]


def test_a_single_example_is_repeated():
    one = CalibrationInputs(((torch.ones(1, 3), torch.ones(2, 1, 5)),), ("x", "h"), (0, 1))
    assert [tuple(x.shape) for x in one.example(2)] == [(2, 3), (2, 2, 5)]


def test_inputs_of_another_module_keep_their_axes():
    found = inputs().of({"h": True, "x": True})
    assert (found.names, found.axes) == (("h", "x"), (1, 0))
