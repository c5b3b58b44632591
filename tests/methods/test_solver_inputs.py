"""Solvers that see what their weight multiplies, and how often the data are run for all that a stage wants to see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerGroup
from attar._src.core.tensors import Dense, round_to_grid
from attar._src.methods.quantize.ptq import stage as staging
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.ptq.solvers.solver import Solver, affine_grid, flat_index, weight_extremes
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model import collect as collecting
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.statistics import ChannelMean, InputHessian, Range
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


class Net(nn.Module):
    """Correlated channels, a grouped and strided convolution, a linear layer, a plain matrix ``(in, out)``."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, groups=2)
        self.head, self.matrix = nn.Linear(8, 6), nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        y = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))
        return torch.relu(self.head(y)) @ self.matrix


class Columns(Solver):
    """GPTQ's rounding, column by column, written as its definition rather than for speed: after each column the
    others move to the minimum of the quadratic form that is left (Frantar et al. 2022, section 3)."""

    name = "columns"
    inputs = (InputHessian,)

    def solve(self, weight, scheme, inputs=None):
        hessian = inputs[InputHessian]
        scale, _ = affine_grid(*weight_extremes(weight, scheme), scheme)
        rows = hessian.window.rows(weight).astype(np.float64)
        steps = hessian.window.rows(scale[flat_index(weight, scheme)].reshape(weight.shape))
        for row, step, matrix in zip(rows, steps, hessian.matrix, strict=True):
            matrix = matrix + 0.01 * matrix.diagonal().mean() * np.eye(len(matrix))
            for column in range(len(matrix)):
                value = row[:, column].copy()
                row[:, column] = step[:, column] * np.clip(np.rint(value / step[:, column]), scheme.qmin, scheme.qmax)
                rest = slice(column + 1, None)
                moved = np.linalg.solve(matrix[rest, rest], np.outer(matrix[rest, column], value - row[:, column]))
                row[:, rest] += moved.T
        return round_to_grid(hessian.window.weight(rows, weight.shape).astype(np.float32), scale, None, scheme)


@pytest.fixture(scope="module")
def piece():
    torch.manual_seed(0)
    return CompressedModel.of(trace(Net(), (torch.randn(2, 3, 9, 9),)))


@pytest.fixture(scope="module")
def real():
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(96, 1, 9, 9, generator=generator) + 0.2 * torch.randn(96, 3, 9, 9, generator=generator)
    return CalibrationInputs(tuple((batch,) for batch in colours.split(32)))


@pytest.fixture
def user(monkeypatch):
    """Let a solver or an observer be known by its name, as if it were in a file of the user's."""

    def register(registry, entry):
        monkeypatch.setitem(registry._entries, entry.name, entry)
        return entry.name

    return register


@pytest.fixture
def runs(monkeypatch):
    found = []
    run = collecting._Recorder.run

    def counted(self, *x, **options):
        # All batches may run in step, node by node.
        found.append(sum(map(len, x[0])))
        return run(self, *x, **options)

    monkeypatch.setattr(collecting._Recorder, "run", counted)
    return found


def outputs(piece, x):
    with torch.no_grad():
        return piece.simulate()(x)


def layer_error(piece, done, real, name):
    """The mean squared error that one rounded weight makes in its layer's output on its true inputs."""
    x = torch.cat([batch[0] for batch in real.batches])
    state = piece.state()
    first = torch.relu(F.conv2d(x, state["first.weight"], state["first.bias"], padding=1))
    second = torch.relu(F.conv2d(first, state["second.weight"], state["second.bias"], stride=2, groups=2)).mean((2, 3))
    head = torch.relu(F.linear(second, state["head.weight"], state["head.bias"]))
    change = torch.from_numpy(np.array(done.tensors[name].dense())) - state[name]
    made = {
        "first.weight": lambda w: F.conv2d(x, w, padding=1),
        "second.weight": lambda w: F.conv2d(first, w, stride=2, groups=2),
        "head.weight": lambda w: F.linear(second, w),
        "matrix": lambda w: head @ w,
    }[name](change)
    return made.square().mean().item()


@pytest.mark.parametrize("granularity", [None, PerGroup(size=9)], ids=["channel", "group"])
def test_a_solver_that_sees_its_inputs_keeps_the_outputs_better(piece, real, user, granularity):
    options = {"bits": 3, "correct_bias": False, "granularity": granularity}
    absmax = PostTrainingQuantize(scales="absmax", **options).run(piece, Context(real))
    columns = PostTrainingQuantize(scales=user(SOLVERS, Columns()), **options).run(piece, Context(real))
    assert columns.tensors.keys() == absmax.tensors.keys() == {"first.weight", "second.weight", "head.weight", "matrix"}
    for name in columns.tensors:
        assert layer_error(piece, columns, real, name) < 0.9 * layer_error(piece, absmax, real, name), name
    x = torch.cat([batch[0] for batch in real.batches])
    exact = outputs(piece, x)
    assert (outputs(columns, x) - exact).square().mean() < (outputs(absmax, x) - exact).square().mean()


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 1),
        ({"correct_bias": False}, 1),
        ({"correct_bias": False, "scales": "absmax"}, 0),
        # 8 bits are as good without seeing anything.
        ({"correct_bias": False, "bits": 8}, 0),
        ({"activations": 8, "observer": "minmax"}, 1),
        # A histogram depends on its range: both in one run where the values of all batches fit in memory.
        ({"activations": 8, "observer": "mse"}, 2),
        ({"activations": 8, "observer": "minmax", "scales": "columns"}, 1),
        ({"activations": 8, "observer": "percentile", "scales": "columns"}, 2),
    ],
)
def test_the_data_are_run_as_few_times_as_what_is_wanted_allows(piece, real, runs, user, options, passes):
    user(SOLVERS, Columns())
    PostTrainingQuantize(**options).run(piece, Context(real))
    assert runs == {0: [], 1: [32, 32, 32], 2: [96]}[passes]


def test_bits_choose_the_solver_unless_it_is_named(piece, real):
    """Guards the default: few bits are solved with what weights multiply, and 8 cost nothing."""
    for given, name in (
        ({"bits": 3}, "gptq"),
        ({"bits": 5}, "gptq"),
        ({"bits": 6}, "absmax"),
        ({"bits": 8, "rate": 0.003}, "gptq"),
        ({"bits": 8, "overrides": {"*": 4}}, "gptq"),
        ({"bits": {"size": 7.0}}, "gptq"),
    ):
        made = PostTrainingQuantize(**given).run(piece, Context(real))
        same = PostTrainingQuantize(scales=name, **given).run(piece, Context(real))
        assert made.tensors.keys() == same.tensors.keys()
        for key, tensor in made.tensors.items():
            assert (tensor.dense() == same.tensors[key].dense()).all(), (given, key)


def test_where_memory_is_short_the_bytes_are_the_same(piece, real, runs, user, monkeypatch):
    stage = PostTrainingQuantize(bits=3, activations=8, observer="mse", scales=user(SOLVERS, Columns()))
    one = stage.run(piece, Context(real))
    assert sum(runs) == 96
    collect = staging.collect
    monkeypatch.setattr(staging, "collect", lambda *args, **options: collect(*args, **options, memory=8 * 27 * 27))
    many = stage.run(piece, Context(real))
    assert sum(runs) > 3 * 96
    assert one.main.activations == many.main.activations
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.dense(), many.tensors[name].dense())


class Seeing(Solver):
    """Absmax that remembers what it was shown."""

    name = "seeing"
    inputs = (Range, ChannelMean)

    def __init__(self):
        self.shown = {}

    def solve(self, weight, scheme, inputs=None):
        self.shown[weight.shape] = inputs
        return SOLVERS["absmax"].solve(weight, scheme)


def test_a_solver_may_need_several_statistics(piece, real, user):
    solver = Seeing()
    PostTrainingQuantize(scales=user(SOLVERS, solver)).run(piece, Context(real))
    x = torch.cat([batch[0] for batch in real.batches])
    shown = solver.shown[8, 3, 3, 3]
    assert (shown[Range].low, shown[Range].high) == (x.min().item(), x.max().item())
    np.testing.assert_allclose(shown[ChannelMean].mean, x.double().mean((0, 2, 3)).numpy())
    assert solver.shown[6, 4][ChannelMean].mean.shape == (6,)


def test_a_solver_without_needs_is_shown_nothing(piece, real, user):
    solver = Seeing()
    solver.inputs = ()
    PostTrainingQuantize(scales=user(SOLVERS, solver)).run(piece, Context(real))
    assert set(solver.shown.values()) == {None}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.rnn, self.head = nn.Embedding(7, 6), nn.GRU(6, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.rnn(self.table(x))[0])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"keep": ("rnn",)}, "at 'table.weight': solver 'columns' needs InputHessian.*read by 'embedding'.*keep it"),
        ({"keep": ("rnn", "table"), "overrides": {"head.bias": 8}}, "at 'head.bias': .*it multiplies no value"),
    ],
)
def test_a_weight_without_one_input_is_refused_before_the_data_are_run(user, runs, options, why):
    words = CompressedModel.of(trace(Words(), (torch.zeros(2, 5, dtype=torch.int64),)))
    tokens = CalibrationInputs(((torch.randint(7, (4, 5)),),))
    name = user(SOLVERS, Columns())
    with pytest.raises(SpecError, match=why):
        PostTrainingQuantize(scales=name, **options).run(words, Context(tokens))
    assert runs == []
    # What it can solve it solves.
    PostTrainingQuantize(scales=name, keep=("rnn", "table")).run(words, Context(tokens))


def test_sites_follow_what_a_solver_left_in_floating_point(piece, real, user):
    class Half(Solver):
        """Rounds matrices, and leaves convolutions as they are."""

        name = "half"

        def solve(self, weight, scheme, inputs=None):
            return Dense(weight) if weight.ndim > 2 else SOLVERS["absmax"].solve(weight, scheme)

    options = {"activations": 8, "observer": "minmax", "correct_bias": False}
    half = PostTrainingQuantize(scales=user(SOLVERS, Half()), **options).run(piece, Context(real))
    kept = PostTrainingQuantize(keep=("first", "second"), **options).run(piece, Context(real))
    assert half.main.activations == kept.main.activations
    assert len(half.main.activations) < len(PostTrainingQuantize(**options).run(piece, Context(real)).main.activations)


def test_an_observer_sees_the_statistic_it_names(piece, real, user):
    class Mean(type(OBSERVERS["minmax"])):
        name = "seen"
        shown = []

        def range(self, seen, bits):
            self.shown.append(seen)
            return super().range(seen, bits)

    done = PostTrainingQuantize(activations=8, observer=user(OBSERVERS, Mean())).run(piece, Context(real))
    assert {type(seen) for seen in Mean.shown} == {Range}
    assert len(Mean.shown) == len(done.main.rounded)


class Twice(nn.Module):
    """One layer that two methods use, of inputs that vary along other directions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 20, bias=False)

    def one(self, x):
        return self.layer(x)

    def other(self, x):
        return self.layer(x.flip(1))


def test_a_weight_of_several_graphs_is_rounded_for_what_all_multiply():
    """Guards against rounding for the inputs of the first graph alone."""
    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(400, 12) * torch.linspace(0.02, 2, 12)
    names = ("one", "other")
    model = CompressedModel.of(trace_methods(net, {name: EntryPoint((x[:2],), name) for name in names}))
    given = dict.fromkeys(names, CalibrationInputs(((x,),)))
    tensors = {}
    for key, graphs in (("both", names), ("first", names[:1])):
        part = replace(model, graphs={name: model.graphs[name] for name in graphs})
        stage = PostTrainingQuantize(bits=3, scales="gptq")
        tensors[key] = stage.run(part, Context({name: given[name] for name in graphs})).tensors["layer.weight"]

    def error(tensor):
        change = torch.from_numpy(tensor.dense()) - net.layer.weight.detach()
        return float(sum((each @ change.T).square().sum() for each in (x, x.flip(1))))

    assert error(tensors["both"]) < 0.9 * error(tensors["first"])
