import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from attar._src.core.errors import DataError
from attar._src.deploy.calibration_inputs import calibration_inputs

#: Arguments of a forward: a and perhaps b.
ONE = {"a": True, "b": False}


def test_an_array_is_cut_into_batches():
    found = calibration_inputs(np.arange(20.0).reshape(10, 2), ONE, examples=7, batch=3)
    assert [len(batch[0]) for batch in found.batches] == [3, 3, 1]
    assert found.examples == 7
    assert found.batches[0][0].dtype == torch.float32


def test_several_inputs_go_together():
    found = calibration_inputs((torch.zeros(5, 2), np.zeros((5, 3), np.int64)), ONE, examples=4, batch=4)
    assert [tensor.shape for tensor in found.batches[0]] == [(4, 2), (4, 3)]
    with pytest.raises(DataError, match=r"\[5, 4\]"):
        calibration_inputs((torch.zeros(5, 2), torch.zeros(4, 2)), ONE, examples=4, batch=4)


def test_a_data_loader_of_inputs_and_labels():
    loader = DataLoader(TensorDataset(torch.randn(10, 3), torch.arange(10)), batch_size=4)
    found = calibration_inputs(loader, ONE, examples=6, batch=99)
    assert [len(batch[0]) for batch in found.batches] == [4, 2]
    assert all(len(batch) == 1 for batch in found.batches)


def test_batches_with_several_inputs():
    batches = [
        ((torch.zeros(2, 1), torch.ones(2, 4)), torch.zeros(2)),
        ([torch.zeros(2, 1), torch.ones(2, 4)],),
    ]
    found = calibration_inputs(batches, ONE, examples=9, batch=1)
    assert [[tuple(t.shape) for t in batch] for batch in found.batches] == [[(2, 1), (2, 4)]] * 2
    assert found.names == ("a", "b")
    with pytest.raises(DataError, match=r"inputs \['a', 'b'\] and the first had \[\]"):
        calibration_inputs([batches[0], ({"a": torch.zeros(2, 1), "b": torch.ones(2, 4)},)], ONE, examples=9, batch=1)


@pytest.mark.parametrize("data", [torch.zeros(1, 3), [], 5, ["text"], torch.tensor(3.0)])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(DataError):
        calibration_inputs(data, ONE, examples=8, batch=4)


def test_mappings_are_matched_by_name():
    batches = [{"labels": torch.zeros(2), "b": torch.ones(2, 4), "a": torch.zeros(2, 1)}]
    found = calibration_inputs(batches, {"a": True, "b": True, "mask": False}, examples=9, batch=1)
    assert [tuple(tensor.shape) for tensor in found.batches[0]] == [(2, 1), (2, 4)]
    whole = calibration_inputs({"b": torch.ones(5, 4), "a": torch.zeros(5, 1)}, ONE, examples=4, batch=4)
    assert [tuple(tensor.shape) for tensor in whole.batches[0]] == [(4, 1), (4, 4)]
    with pytest.raises(DataError, match=r"keys \['x'\] lacks a: the forward takes a, \[b\]"):
        calibration_inputs([{"x": torch.zeros(2, 1)}], ONE, examples=9, batch=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(value):
    with pytest.raises(DataError, match="NaN or infinity"):
        calibration_inputs(torch.full((4, 2), value), ONE, examples=4, batch=4)
