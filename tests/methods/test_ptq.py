import numpy as np
import pytest
import torch
from tests.methods.toys import data, fresh
from torch import nn

from attar._src.core.errors import ModelError, SpecError, UnknownName
from attar._src.core.scheme import PerGroup
from attar._src.core.tensors import Dense, Quantized
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.quantize.unquantized import KEPT_VALUE, left_in_floating_point
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Progress
from attar._src.work.context import Context


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.place = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x))) + self.place
        return self.head(torch.relu(self.second(y)).mean((2, 3)))


@pytest.fixture(scope="module")
def piece():
    torch.manual_seed(0)
    return CompressedModel.of(trace(Net(), (torch.randn(2, 3, 6, 6),)))


@pytest.fixture(scope="module")
def real():
    torch.manual_seed(1)
    return CalibrationInputs(tuple((torch.randn(32, 3, 6, 6),) for _ in range(4)))


def test_every_weight_is_quantized_and_what_is_left_is_said(piece, real):
    stage = PostTrainingQuantize(bits=3)
    done = stage.run(piece, Context(real))
    assert {name for name, tensor in done.tensors.items() if isinstance(tensor, Quantized)} == {
        "first.weight",
        "second.weight",
        "head.weight",
    }
    assert all(t.scheme.bits == 3 for t in done.tensors.values() if isinstance(t, Quantized))
    why = "not recognised as a weight; name it in overrides to quantize it: 32 B"
    assert left_in_floating_point(done) == {"place": why}
    assert done.main.activations == {}
    assert done.record[0]["stage"] == "quantize"
    assert done.record[0]["calibration_examples"] == 128


def test_overrides_and_keeps_by_glob(piece, real):
    stage = PostTrainingQuantize(bits=4, overrides={"*": 5, "first": 8, "place": 6}, keep=("sec*",))
    done = stage.run(piece, Context(real))
    bits = {name: tensor.scheme.bits for name, tensor in done.tensors.items() if isinstance(tensor, Quantized)}
    assert bits == {"first.weight": 8, "head.weight": 5, "place": 6}
    assert left_in_floating_point(done) == {"second.weight": "kept by request: 2.3 KB"}


@pytest.mark.parametrize("option", [{"keep": ("secnd",)}, {"overrides": {"secnd.*": 8}}])
def test_a_glob_that_matches_nothing_lists_near_names(piece, real, option):
    with pytest.raises(UnknownName, match=r"no layer named 'secnd.*second"):
        PostTrainingQuantize(**option).run(piece, Context(real))


def test_a_kept_layer_needs_no_quantized_input(piece, real):
    done = PostTrainingQuantize(activations=8, keep=("head",)).run(piece, Context(real))
    assert "mean" not in done.main.activations
    assert "mean" in PostTrainingQuantize(activations=8).run(piece, Context(real)).main.activations


@pytest.mark.parametrize("glob", ["head", "mean"])
def test_activations_of_a_layer_stay_in_floating_point_and_its_weight_does_not(piece, real, glob):
    done = PostTrainingQuantize(bits=8, activations=8, keep_activations=(glob,)).run(piece, Context(real))
    every = PostTrainingQuantize(bits=8, activations=8).run(piece, Context(real))
    assert isinstance(done.tensors["head.weight"], Quantized)
    # What the mean was taken of only had a grid for the sake of the mean's.
    assert every.main.activations.keys() - done.main.activations.keys() == {"mean"}
    assert left_in_floating_point(done) == {**left_in_floating_point(every), "mean": KEPT_VALUE}


def test_a_later_stage_leaves_them_there(piece, real):
    first = PostTrainingQuantize(bits=8, activations=8, keep_activations=("head",)).run(piece, Context(real))
    again = PostTrainingQuantize(bits=4, activations=4, layers=("second",)).run(first, Context(real))
    assert "mean" not in again.main.activations
    assert left_in_floating_point(again)["mean"] == KEPT_VALUE


def test_activations_span_what_was_seen_and_hold_zero(piece, real):
    done = PostTrainingQuantize(activations=8, observer="minmax").run(piece, Context(real))
    x = torch.cat([batch[0] for batch in real.batches])
    site = done.main.activations["x"]
    assert site.scale == pytest.approx((x.max() - x.min()).item() / 255, rel=1e-5)
    assert site.zero_point == round(-x.min().item() / site.scale)
    assert done.main.activations["relu_1"].zero_point == 0


def test_correction_takes_the_mean_error_out(piece, real):
    state = piece.main.traced.state()
    x = torch.cat([batch[0] for batch in real.batches]) + 0.5
    shifted = CalibrationInputs(((x,),))
    done = PostTrainingQuantize(bits=2, keep=("second", "head")).run(piece, Context(shifted))
    plain = PostTrainingQuantize(bits=2, keep=("second", "head"), correct_bias=False).run(piece, Context(shifted))
    assert isinstance(done.tensors["first.bias"], Dense)
    assert "first.bias" not in plain.tensors
    exact = nn.functional.conv2d(x, state["first.weight"], state["first.bias"])
    errors = []
    for work in (done, plain):
        stored = {name: torch.from_numpy(np.array(tensor.dense())) for name, tensor in work.stored().items()}
        rounded = nn.functional.conv2d(x, stored["first.weight"], stored["first.bias"])
        errors.append((rounded - exact).mean((0, 2, 3)).abs().max().item())
    assert errors[0] < errors[1] / 3


def test_biases_lie_on_the_grid_of_their_products(piece, real):
    done = PostTrainingQuantize(bits=4, activations=8).run(piece, Context(real))
    step = np.float32(done.main.activations["x"].scale) * done.tensors["first.weight"].scale
    steps = done.tensors["first.bias"].dense() / step
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    floating = PostTrainingQuantize(bits=4).run(piece, Context(real))
    steps = floating.tensors["first.bias"].dense() / step
    assert np.abs(steps - np.rint(steps)).max() > 0.05


def test_groups_and_zero_points(piece, real):
    done = PostTrainingQuantize(bits=4, symmetric=False, granularity=PerGroup(size=9)).run(piece, Context(real))
    weight = done.tensors["first.weight"]
    assert weight.scale.shape == (24,)
    assert weight.zero_point is not None


def test_a_nan_on_the_way_is_named(real):
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.log(x))

    work = CompressedModel.of(trace(Bad(), (torch.rand(2, 4),)))
    # With or without activations: a mean of it would have gone into the bias.
    for activations in (8, None):
        with pytest.raises(ModelError, match="'log' was not finite on the calibration data: 16 of 16 elements"):
            PostTrainingQuantize(activations=activations).run(work, Context(CalibrationInputs(((torch.zeros(4, 4),),))))


def test_a_weight_with_nan_is_named():
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight[0, 0] = float("nan")
    work = CompressedModel.of(trace(net, (torch.rand(2, 4),)))
    with pytest.raises(SpecError, match=r"stage quantize at 'weight'.*NaN"):
        PostTrainingQuantize(activations=8).run(work, Context(CalibrationInputs(((torch.zeros(4, 4),),))))


def held_to(*rules):
    """What is deployed after a few batches under some rules."""
    learner = fresh()
    for rule in rules:
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    for step in range(3):
        learner.update(Progress(step, 3))
        graph(data(16, seed=step)[0])
    learner.finalize()
    return learner.deployed()


SOME = CalibrationInputs(((data(64)[0],),))


def test_what_was_pruned_before_stays_pruned():
    # Masks that were not settled: only what holds the weights knows of the zeros.
    learner = fresh()
    rule = Prune(sparsity=0.5, shape="once", end=0).attach(learner)
    learner.attach(rule)
    learner.update(Progress(0, 1))
    before = learner.deployed()
    done = PostTrainingQuantize(bits=4, keep=("head",)).run(before, Context(SOME))
    for name in ("first.weight", "second.weight"):
        assert np.array_equal(done.tensors[name].codes == 0, before.tensors[name].dense() == 0)
    assert np.array_equal(done.tensors["head.weight"].dense(), before.tensors["head.weight"].dense())
    assert left_in_floating_point(done) == {"head.weight": "kept by request: 128 B"}


def test_grids_of_before_stay_where_this_stage_has_none():
    before = held_to(StraightThrough(bits=3, activations=8))
    stage = PostTrainingQuantize(bits=8, keep=("first",))
    done = stage.run(before, Context(SOME))
    assert done.main.activations == before.main.activations
    assert done.main.rounded == before.main.rounded
    assert done.tensors["first.weight"] is before.tensors["first.weight"]
    # Three bits on a grid of eight: what was rounded before is what is rounded now.
    coarse, fine = (piece.tensors["second.weight"].dense() for piece in (before, done))
    # The step may be wider than the range over 127, so that pairs fit 16 bits, and then has eight binary digits.
    assert np.abs(fine - coarse).max() < 1.1 * done.tensors["second.weight"].scale.max()
    assert left_in_floating_point(done) == {}
    again = PostTrainingQuantize(bits=8, activations=4, keep=("first",)).run(before, Context(SOME))
    # One is only added, the other only averaged.
    assert {name for name, grid in again.main.activations.items() if grid.bits != 4} == {"conv2d_1", "relu_1"}
    assert again.main.activations.keys() == before.main.activations.keys()


@pytest.mark.parametrize(
    "stage", [PostTrainingQuantize(bits=4), PostTrainingQuantize(bits=4, activations=6)], ids=["kept", "new"]
)
def test_biases_follow_the_grids_of_their_products(stage):
    done = stage.run(held_to(StraightThrough(bits=3, activations=8)), Context(SOME))
    for layer, value in (("first", "x"), ("second", "relu"), ("head", "mean")):
        step = np.float32(done.main.activations[value].scale) * done.tensors[f"{layer}.weight"].scale
        steps = done.tensors[f"{layer}.bias"].dense() / step
        assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_biases_are_not_fitted_to_a_few_inputs():
    # Of one input the correction would make its output exact, and the figures of the file perfect.
    torch.manual_seed(0)
    model = CompressedModel.of(
        trace(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), (torch.randn(2, 16),))
    )
    biases = [
        PostTrainingQuantize(bits=4).run(model, Context(CalibrationInputs(((torch.randn(rows, 16),),)))).tensors
        for rows in (1, 7, 8)
    ]
    assert [[name for name in ("0.bias", "2.bias") if name in tensors] for tensors in biases] == [
        [],
        [],
        ["0.bias", "2.bias"],
    ]


@pytest.mark.parametrize("name", ["embed", "embed.weight", "head", "head.w*"])
def test_a_tied_weight_answers_to_each_of_its_names(name):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(torch.relu(self.embed(ids)))

    ids = torch.randint(0, 10, (16, 5))
    model, context = CompressedModel.of(trace(Tied(), (ids[:2],))), Context(CalibrationInputs(((ids,),)))
    (tensor,) = PostTrainingQuantize(bits=4, overrides={name: 3}).run(model, context).tensors.values()
    assert tensor.scheme.bits == 3
    assert not PostTrainingQuantize(bits=4, keep=(name,)).run(model, context).tensors
