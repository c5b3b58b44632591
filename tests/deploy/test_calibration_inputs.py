from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from attar._src.core.errors import DataError
from attar._src.deploy.calibration_inputs import calibration_inputs
from attar._src.work.calibration_inputs import CalibrationInputs

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
    with pytest.raises(DataError, match=r"input 'b' \(4, 2\) has no axis of 5"):
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


@pytest.mark.parametrize("data", [[], 5, ["text"], torch.tensor(3.0), torch.zeros(0, 3)])
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


@dataclass
class Fields:
    b: object
    a: object
    mask: object = None
    labels: object = None


class Loader:
    """Batches of an object that is iterated, though its class is a dataclass."""

    def __iter__(self):
        return iter([{"a": torch.zeros(2, 1), "b": torch.ones(2, 4)}])


@pytest.mark.parametrize(
    "data",
    [
        [{"b": torch.ones(2, 4), "a": torch.zeros(2, 1), "y": ["p", "q"]}],
        [Fields(torch.ones(2, 4), torch.zeros(2, 1), labels="not looked at")],
        Fields(torch.ones(2, 4), torch.zeros(2, 1)),
        {"b": np.ones((2, 4)), "a": np.zeros((2, 1)), "names": ["p", "q"]},
        dataclass(Loader)(),
    ],
)
def test_every_form_with_names_gives_the_same(data):
    found = calibration_inputs(data, {"a": True, "skipped": False, "b": False, "mask": False}, examples=9, batch=9)
    assert found.names == ("a", "b")
    assert [tuple(tensor.shape) for tensor in found.batches[0]] == [(2, 1), (2, 4)]


def test_a_model_takes_its_own_arguments_of_what_all_models_take():
    both = CalibrationInputs(((torch.zeros(2, 1), torch.ones(2, 4)),), ("a", "b"))
    own = both.of({"b": True, "c": False, "a": False})
    assert own.names == ("b", "a")
    assert [tuple(tensor.shape) for tensor in own.of({"b": True}).batches[0]] == [(2, 4)]
    assert own.first(1).names == own.of_one_size().names == ("b", "a")
    with pytest.raises(DataError, match="lacks c"):
        both.of({"c": True})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(value):
    with pytest.raises(DataError, match="NaN or infinity"):
        calibration_inputs(torch.full((4, 2), value), ONE, examples=4, batch=4)


def of(data, parameters=None, **options):
    return calibration_inputs(data, parameters or {"x": True}, **{"examples": 8, "batch": 4, **options})


def test_labels_that_data_bring_along_are_kept_in_the_order_of_the_examples():
    x, y = torch.randn(10, 2), torch.arange(10)
    loader = DataLoader(TensorDataset(x, y), batch_size=3)
    forms = [(x, y), {"x": x, "labels": y}, loader, TensorDataset(x, y), [{"x": x, "y": y}]]
    for data in forms:
        found = of(data)
        assert torch.cat(found.targets).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert [len(each) for each in found.targets] == [len(batch[0]) for batch in found.batches]
    assert of((x, y % 2 == 0)).targets[0].dtype is torch.int64
    assert of((x, y.double())).targets[0].dtype is torch.float32


@pytest.mark.parametrize("y", [[{"boxes": torch.zeros(1, 4)}] * 4, ["a", "b", "c", "d"], torch.full((4,), torch.nan)])
def test_labels_of_another_form_are_left_out(y):
    assert of([(torch.zeros(4, 2), y)] * 2).targets == ()
    assert of(torch.zeros(4, 2)).targets == ()


def test_fields_that_no_argument_takes_are_named():
    x, ids = torch.zeros(8, 2), torch.zeros(8, 1)
    assert of({"x": x, "labels": ids, "pixel_mask": x, "ids": ids}).notes == (
        "pixel_mask, ids are no arguments of the module's forward, which does not see them",
    )
    assert of([{"x": x, "mask": x}]).notes == ("mask is no argument of the module's forward, which does not see it",)
    assert of([({"x": x, "more": x}, ids)]).notes[0].startswith("more is no argument")
    # Entries of an argument and None are no such fields.
    assert of({"inputs": (x, x), "labels": ids, "mask": None}, {"inputs": True}).notes == ()
