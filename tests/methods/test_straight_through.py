from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.toys import data, fresh
from torch import nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import ModelError, SpecError, UnknownName
from attar._src.core.float16 import round_up
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Dense, Quantized
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.solvers.solver import Solver
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.activation_grid import RANGE_MOMENTUM, ActivationGrid
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.quantize.qat.weight_grid import WeightGrid
from attar._src.methods.quantize.unquantized import KEPT_VALUE, left_in_floating_point
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import Round
from attar._src.work.constraint import Progress
from attar._src.work.context import Context
from attar._src.work.learner import Learner

CHANNELS = [PerTensor(), PerChannel(), PerChannel(axis=1)]
GRANULARITIES = [*CHANNELS, PerGroup(size=5), PerBucket(size=7), PerBucket(size=1000)]


def grid_of(weight, bits=4, granularity=None, solver=None):
    return WeightGrid(weight, Scheme(bits=bits, granularity=granularity or PerChannel()), solver)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 3, 2), (1, 9), (5, 1)])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_what_is_stored_is_what_is_read(granularity, shape, bits):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    held = grid_of(weight, bits, granularity)
    stored = held.to_compressed(weight)
    assert isinstance(stored, Quantized)
    assert np.array_equal(stored.dense(), held(weight).numpy())
    # As the solver of that name finds it, but for a scale that was rounded below the largest value.
    solved = SOLVERS["absmax"].solve(weight.numpy(), held.scheme)
    assert np.allclose(stored.scale, solved.scale, rtol=2e-7, atol=0)
    assert (np.abs(stored.codes.astype(int) - solved.codes) <= 1).all()


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    scale=st.floats(2.0**-100, 2.0**100, width=32),
    seed=st.integers(0, 999),
    granularity=st.sampled_from([PerChannel(), PerTensor(), PerGroup(size=4)]),
)
def test_weights_on_the_grid_survive_exactly_and_nothing_loses_its_gradient(bits, scale, seed, granularity):
    scheme, (scale,) = Scheme(bits=bits, granularity=granularity), round_up(np.array([scale], np.float32))
    codes = np.random.default_rng(seed).integers(scheme.qmin, scheme.qmax + 1, (3, 8))
    codes[:, ::4] = scheme.qmax
    weight = torch.from_numpy(codes.astype(np.float32) * scale).requires_grad_()
    held = grid_of(weight, bits, granularity)
    read = held(weight)
    assert np.array_equal(held.to_compressed(weight).codes, codes)
    torch.testing.assert_close(read.detach(), weight.detach(), rtol=2e-7, atol=0)
    read.sum().backward()
    assert (weight.grad == 1).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_largest_weight_keeps_its_gradient(bits):
    weight = torch.randn(2000, 3, generator=torch.Generator().manual_seed(bits)).requires_grad_()
    grid_of(weight, bits)(weight).sum().backward()
    assert (weight.grad == 1).all()


def test_powers_of_two_survive_to_the_bit():
    weight = torch.tensor([[-7.0, 3, 0, 7], [1, 2, -7, 5]]) * 0.125
    assert torch.equal(grid_of(weight)(weight), weight)


def test_the_gradient_is_that_of_the_rounded_weight_within_the_range():
    # A solver that clips: the gradient of what lies outside its grid is zero.
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    held = grid_of(weight, 3, solver=SOLVERS["mse"])
    factor = torch.randn(4, 50)
    (held(weight) * factor).sum().backward()
    end = (held.scale * held.scheme.qmax)[:, None]
    inside = weight.detach().abs() <= end
    assert not inside.all()
    assert torch.equal(weight.grad, torch.where(inside, factor, 0.0))


def test_a_solver_is_asked_when_it_is_due():
    weight = torch.randn(4, 50)
    held = grid_of(weight, solver=SOLVERS["mse"])
    held(weight)
    before = held.scale.clone()
    held(weight * 2)
    assert torch.equal(held.scale, before)
    held.due = True
    held(weight * 2)
    assert torch.equal(held.scale, before * 2)
    assert not held.due


def test_a_solver_without_a_symmetric_grid_is_refused():
    class Keep(Solver):
        name = "keep"

        def solve(self, weight, scheme, inputs=None):
            return Dense(weight)

    weight = torch.randn(2, 3)
    with pytest.raises(SpecError, match="'keep' returned no symmetric grid"):
        grid_of(weight, solver=Keep())(weight)


def test_a_solver_that_needs_inputs_is_refused_when_the_rule_is_attached(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from attar.extend import Absmax, InputHessian\n"
        "class Mine(Absmax):\n"
        "    name = 'mine'\n"
        "    inputs = (InputHessian,)\n"
    )
    with pytest.raises(SpecError, match=r"'mine' needs InputHessian.*has the weight alone; use absmax or mse"):
        StraightThrough(scales=f"{tmp_path}/mine.py:Mine").attach(fresh())


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3)])
def test_empty_weights_zeros_and_denormals(shape):
    for fill in (0.0, 1e-42):
        weight = torch.full(shape, fill)
        stored = grid_of(weight).to_compressed(weight)
        assert (stored.scale > 0).all()
        assert np.array_equal(stored.dense(), grid_of(weight)(weight).numpy())


def site(bits=8, low=-1.0, high=3.0):
    grid = ActivationGrid(bits).train()
    grid(torch.tensor([low, high]))
    grid.advance()
    return grid


def test_nothing_is_rounded_before_a_range_is_known():
    grid, x = ActivationGrid(2).train(), torch.randn(100)
    assert torch.equal(grid(x), x)
    assert torch.equal(grid.eval()(x), x)
    assert grid.grid("x") is None
    grid.advance()
    assert len(grid(x).unique()) == 4


def test_the_range_is_a_moving_average_over_all_values_of_the_site():
    grid = ActivationGrid(8).train()
    grid(torch.tensor([-1.0, 2.0]))
    grid(torch.tensor([0.0, 4.0]))
    grid.advance()
    assert grid.range.tolist() == [-1, 4]
    grid(torch.tensor([-2.0, 8.0]))
    grid.advance()
    assert grid.range.tolist() == pytest.approx([-1 - RANGE_MOMENTUM, 4 + 4 * RANGE_MOMENTUM])
    grid.watching = False
    grid(torch.tensor([-200.0, 800.0]))
    grid.advance()
    assert grid.range.tolist() == pytest.approx([-1 - RANGE_MOMENTUM, 4 + 4 * RANGE_MOMENTUM])


def test_in_evaluation_nothing_is_watched():
    grid = site(8).eval()
    assert grid.watching
    grid(torch.tensor([-200.0, 800.0]))
    grid.advance()
    assert grid.range.tolist() == [-1, 3]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-30, 1e-30)])
def test_it_rounds_as_the_file_does_and_holds_zero(bits, low, high):
    grid = site(bits, low, high).eval()
    x = torch.linspace(low - 1, high + 1, 999)
    said = grid.grid("x")
    assert isinstance(said, Activation)
    assert torch.equal(grid(x), Round(said)(x))
    assert torch.equal(grid(grid(x)), grid(x))
    assert grid(torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_gradient_passes_within_the_range():
    grid = site(4)
    x = torch.linspace(-2, 4, 61, requires_grad=True)
    grid(x).sum().backward()
    low, high = (float(grid.scale * (end - grid.zero_point)) for end in (0, 15))
    assert torch.equal(x.grad, ((x >= low) & (x <= high)).float().detach())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(bad):
    grid = ActivationGrid(8).train()
    grid(torch.tensor([bad, bad]))
    with pytest.raises(ModelError, match="not finite in training"):
        grid.advance()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_ranges_leave_out_what_is_not_finite_and_say_so(bad):
    grid = ActivationGrid(8).train()
    grid(torch.tensor([-1.0, bad, 2.0]))
    grid.advance()
    assert grid.range.tolist() == [-1, 2]
    (said,) = grid.warnings("hidden")
    assert "'hidden': 1 elements in training were NaN or infinite" in said


@pytest.mark.parametrize("rule", [StraightThrough, Lsq])
def test_activations_of_a_layer_stay_in_floating_point_by_request(rule):
    learner = fresh()
    learner.attach(rule(bits=8, activations=8, keep_activations=("head",)).attach(learner))
    learner.graph(train=True)(data(8)[0])
    for grid in learner.constraints[0].parametrizations:
        if isinstance(grid, ActivationGrid):
            grid.advance()
    model = learner.deployed()
    assert isinstance(model.tensors["head.weight"], Quantized)
    assert "mean" not in model.main.activations
    # The value that the mean is taken of would have a grid for the sake of the mean's alone.
    assert left_in_floating_point(model) == dict.fromkeys(["relu_1", "mean"], KEPT_VALUE)
    assert left_in_floating_point(learner.deployed(fold=False))["mean"] == KEPT_VALUE
    with pytest.raises(UnknownName, match=r"'haed'.*head"):
        rule(activations=8, keep_activations=("haed",)).attach(learner)


def test_bits_by_glob_and_what_is_left():
    learner = fresh()
    rule = StraightThrough(bits=4, overrides={"*": 5, "first": 8}, keep=("head",)).attach(learner)
    learner.attach(rule)
    assert {n: held.scheme.bits for n, held in rule.weights.items()} == {"first.weight": 8, "second.weight": 5}
    assert rule.values == {}
    assert left_in_floating_point(learner.deployed()) == {"head.weight": "kept by request: 128 B"}


def test_what_an_earlier_stage_holds_is_not_left():
    learner = fresh()
    learner.attach(StraightThrough(keep=("first",)).attach(learner))
    assert left_in_floating_point(learner.deployed()) == {"first.weight": "kept by request: 576 B"}
    learner.attach(StraightThrough(keep=("head",)).attach(learner))
    assert left_in_floating_point(learner.deployed()) == {}
    assert {name for constraint in learner.constraints for name in constraint.weights} == set(learner.weights)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.table.weight
        self.place = nn.Parameter(torch.zeros(1, 4))

    def forward(self, x):
        return self.head(nn.functional.layer_norm(x, (4,)) + self.place)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.inner(x)[:, None].chunk(3, -1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v)).mean((1, 2))


def learner_of(module, x):
    captured = capture(module, (x,))
    return Learner(module, captured, deploy_graph(module, captured))


def test_a_tied_weight_has_one_name():
    learner = learner_of(Tied(), torch.randn(2, 4))
    assert list(learner.weights) == ["head.weight"]
    learner.attach(StraightThrough().attach(learner))
    assert {name: why[:17] for name, why in left_in_floating_point(learner.deployed()).items()} == {
        "place": "not recognised as"
    }


def test_attention_in_one_operation_is_named():
    learner = learner_of(Attention(), torch.randn(2, 5, 4))
    data = Context(CalibrationInputs(((torch.randn(4, 5, 4),),)))
    assert left_in_floating_point(PostTrainingQuantize().run(learner.deployed(), data)) == {}
    done = PostTrainingQuantize(activations=8).run(learner.deployed(), data)
    why = "attention's own products stay in floating point"
    assert left_in_floating_point(done) == {"scaled_dot_product_attention": why}


def test_a_site_without_a_place_is_named():
    learner = fresh()
    learner.attach(StraightThrough(activations=8, freeze=1.0).attach(learner))
    learner.graph(train=True)(data(16)[0])
    learner.update(Progress(1, 2))
    done = learner.deployed()
    assert left_in_floating_point(done) == {}
    others = {name: grid for name, grid in done.main.activations.items() if name != "mean"}
    done = replace(done, graphs={"main": replace(done.main, activations=others)})
    assert left_in_floating_point(done) == {"mean": "no stage quantized it"}
    kept = {**done.tensors, "head.weight": Dense(done.tensors["head.weight"].dense())}
    assert "mean" not in left_in_floating_point(replace(done, tensors=kept))


def test_a_kept_layer_needs_no_quantized_input():
    learner = fresh()
    assert "mean" in StraightThrough(activations=8).attach(learner).values
    assert "mean" not in StraightThrough(activations=8, keep=("head",)).attach(learner).values


def test_sources_of_one_site_share_one_grid():
    learner = fresh()
    rule = StraightThrough(activations=8).attach(learner)
    for place in learner.places():
        assert len({id(rule.values[name]) for name in place.sources}) == 1


def test_a_scheme_that_does_not_fit_names_the_weight():
    with pytest.raises(SpecError, match=r"quantize at 'head.weight': .*axis 3"):
        StraightThrough(granularity=PerChannel(axis=3)).attach(fresh())


def test_ranges_are_fixed_after_their_share_of_the_stage():
    learner = fresh()
    learner.attach(StraightThrough(activations=8, freeze=0.5).attach(learner))
    graph, seen = learner.graph(train=True), []
    for step in range(8):
        learner.update(Progress(step, 8))
        graph(data(16, seed=step)[0] * (step + 1))
        seen.append(learner.constraints[0].values["relu"].range.tolist())
    assert len({str(each) for each in seen[1:5]}) == 4
    assert len({str(each) for each in seen[4:]}) == 1


def test_biases_end_on_the_grid_that_kernels_add_on():
    learner = fresh()
    learner.attach(StraightThrough(activations=8).attach(learner))
    graph = learner.graph(train=True)
    for step in range(2):
        learner.update(Progress(step, 2))
        graph(data(16)[0])
    piece = learner.deployed()
    bias, weight = piece.tensors["head.bias"].dense(), piece.tensors["head.weight"]
    steps = bias / (np.float32(piece.main.activations["mean"].scale) * weight.scale)
    assert np.allclose(steps, np.rint(steps), atol=1e-3)
