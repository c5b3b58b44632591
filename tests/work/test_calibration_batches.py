"""CalibrationInputs whose batch is not axis 0 of every input."""

import pytest
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


@pytest.mark.parametrize("sizes", [(16,), (7, 9), (1,) * 16, (4, 4, 4, 4), (3, 3)])
@pytest.mark.parametrize("several", [2, 4])
def test_one_of_several_is_from_everywhere_in_the_data(sizes, several):
    """Guards against the last ones of sorted data, whose range no other example has, and against every fourth one."""
    values = torch.arange(float(sum(sizes)))
    batches = tuple((torch.randn(2, len(part)), part) for part in values.split(sizes))
    targets = tuple(10 * part for _, part in batches)
    rest, one = CalibrationInputs(batches, axes=(1, 0), targets=targets).one_of(several)
    for part in (rest, one):
        assert [len(x) for _, x in part.batches] == [batch.shape[1] for batch, _ in part.batches]
        assert torch.equal(torch.cat(part.targets), 10 * torch.cat([x for _, x in part.batches]))
    drawn = torch.cat([x for _, x in one.batches])
    assert torch.cat([drawn, *(x for _, x in rest.batches)]).sort().values.equal(values)
    assert (drawn // several).unique().numel() == len(drawn) >= len(values) // several
    if len(values) == 16:
        assert (drawn % several).unique().numel() > 1


def test_whole_batches_are_drawn_for_a_fixed_batch_size():
    batches = tuple((torch.full((4, 1), float(each)),) for each in range(8))
    rest, one = CalibrationInputs(batches).one_of(4, whole=True)
    assert [len(each.batches) for each in (rest, one)] == [6, 2]
    assert all(len(batch[0]) == 4 for each in (rest, one) for batch in each.batches)
    alone = CalibrationInputs(batches[:1])
    assert alone.one_of(4, whole=True) == (alone, alone)
    single = CalibrationInputs(((batches[0][0][:1],),))
    assert single.halves() == (single, single)
