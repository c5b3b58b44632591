"""Faults guarded: a value that is only added or averaged loses bits, or a layer's own bits reach no grid."""

import pytest
import torch
from tests.methods.toys import data, fresh

import attar
from attar._src.core.errors import SpecError, UnknownName
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Progress
from attar._src.work.context import Context, Trial


def bits_of(kind, **fields):
    """Value -> bits of its grid, in the network of ``toys``."""
    learner = fresh()
    if kind is not PostTrainingQuantize:
        learner.attach(kind(**fields).attach(learner))
        for step in range(2):  # the first range is known after a batch
            learner.update(Progress(step, 2))
            learner.graph(train=True)(data(16)[0])
        learner.finalize()
        return {name: grid.bits for name, grid in learner.deployed().main.activations.items()}
    done = kind(**fields).run(learner.deployed(), Context(CalibrationInputs(((data(16)[0],),))))
    return {name: grid.bits for name, grid in done.main.activations.items()}


@pytest.mark.parametrize("kind", [PostTrainingQuantize, StraightThrough, Lsq])
def test_what_layers_multiply_has_the_bits_and_what_is_added_has_8(kind):
    # conv2d_1 goes into the addition, the last relu into the mean.
    added = {"conv2d_1": 8, "relu_1": 8}
    # The inner relu is added and multiplied: after training each has its grid, while training one with the fewer bits.
    both = {"relu": 8, "relu_reading": 4} if kind is PostTrainingQuantize else {"relu": 4}
    assert bits_of(kind, activations=4) == {"x": 4, "mean": 4, **both, **added}
    given = {"first": 8, "h*d": 6, "conv2d_1": 5}
    assert bits_of(kind, activations=4, activation_overrides=given) == {
        "x": 8,
        **both,
        "conv2d_1": 5,
        "relu_1": 8,
        "mean": 6,
    }
    assert set(bits_of(kind, activations=8).values()) == {8}
    with pytest.raises(UnknownName, match="frist"):
        bits_of(kind, activations=4, activation_overrides={"frist": 8})


def test_a_wrong_name_is_found_before_calibration():
    """Guards against minutes of work for a message that the graph alone could give."""
    model = CompressedModel.of(trace(torch.nn.Linear(4, 2), (torch.randn(8, 4),)))
    with pytest.raises(UnknownName, match="frist"):
        PostTrainingQuantize(activations=8, activation_overrides={"frist": 8}).try_on(
            model, Trial((torch.randn(8, 4),), {})
        )


@pytest.mark.parametrize("kind", [PostTrainingQuantize, StraightThrough, Lsq])
def test_bits_of_values_without_grids_are_refused(kind):
    """Guards against an option that does nothing, so that not even a wrong name in it is found."""
    with pytest.raises(ValueError, match=r"gives 'frist' bits .* floating point; add activations=8"):
        kind(activation_overrides={"frist": 4})
    with pytest.raises(SpecError, match="activations are dynamic; add activations=8"):
        attar.quantize(torch.nn.Linear(4, 2), torch.randn(8, 4), activations="dynamic", activation_overrides={"*": 4})


@pytest.mark.parametrize("option", [{"max_ms": 1e4}, {"activations": "auto"}])
def test_a_choice_by_time_may_have_bits_of_values(option):
    net = torch.nn.Sequential(torch.nn.Linear(4, 2))
    attar.quantize(net, torch.randn(8, 4), activation_overrides={"0": 4}, tolerance=None, **option)
    with pytest.raises(UnknownName, match="frist"):
        attar.quantize(net, torch.randn(8, 4), activation_overrides={"frist": 4}, **option)


def test_the_most_bits_of_a_site_count():
    """Slices and padding share one grid: a layer that reads the whole value sees it as the one of the slice does."""

    class Sliced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Linear(8, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.one(x) + self.two(x[:, :4])

    x = torch.randn(16, 8)
    model = CompressedModel.of(trace(Sliced().eval(), (x,)))
    stage = PostTrainingQuantize(activations=3, activation_overrides={"one": 5, "two": 6})
    grids = stage.run(model, Context(CalibrationInputs(((x,),)))).main.activations
    assert {grid.bits for grid in grids.values()} == {6}
