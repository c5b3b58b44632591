"""Which layers become dynamic, what is said of the others, and what training makes of them."""

import numpy as np
import pytest
import torch
from tests.methods.toys import data, fresh
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.core.tensors import Quantized
from attar._src.methods.quantize.dynamic_layers import dynamic_layers
from attar._src.methods.quantize.fixed_grids import adopt
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


class Mixed(nn.Module):
    """A convolution, linear layers with and without bias, a shared one, and parameters on either side of a product."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 1)
        self.up, self.again, self.head = nn.Linear(6, 12, bias=False), nn.Linear(12, 12), nn.Linear(12, 3)
        self.right, self.left = nn.Parameter(torch.randn(12, 12) / 3), nn.Parameter(torch.randn(5, 5) / 2)

    def forward(self, x):
        x = self.up(self.conv(x.transpose(1, 2)).transpose(1, 2))
        for _ in range(2):
            x = torch.tanh(self.again(x))
        return self.head(self.left @ (x @ self.right))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def staged(net, *stages, shape=(16, 5, 6)):
    torch.manual_seed(0)
    x = torch.randn(*shape)
    model = CompressedModel.of(trace(net.eval(), (x[:2],)))
    for fields in stages:
        model = PostTrainingQuantize(**fields).run(model, Context(CalibrationInputs(((x,),))))
    return model


def owners(model):
    """The weights whose layers are dynamic."""
    weights = model.weights()
    return {name for name, each in weights.items() if not model.main.dynamic.isdisjoint(each.readers)}


def test_linear_layers_and_products_by_a_matrix_on_the_right_are_dynamic():
    model = staged(Mixed(), {"activations": "dynamic"})
    assert owners(model) == {"up.weight", "again.weight", "head.weight", "right"}
    assert model.main.dynamic >= set(model.weights()["again.weight"].readers)
    assert model.main.activations == {}
    assert model.record[-1]["activations"] == "dynamic"
    left = left_in_floating_point(model)
    assert any("Conv" in why for why in left.values())
    assert any("first factor" in why for why in left.values())
    assert len(left) == 2


def test_the_file_names_the_nodes_of_the_layers_in_order():
    model = staged(Mixed(), {"activations": "dynamic"})
    contents = model.main.contents("main")
    places = {node.name: place for place, node in enumerate(contents.model.graph.node)}
    assert len(contents.dynamic) == len(model.main.dynamic) == 5
    assert [places[name] for name in contents.dynamic] == sorted(places[name] for name in contents.dynamic)
    assert {contents.model.graph.node[places[name]].op_type for name in contents.dynamic} <= {"Gemm", "MatMul"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"symmetric": False}, "zero points"),
        ({"granularity": "group:2"}, "scales that do not belong to output channels"),
        ({"granularity": "bucket:5"}, "scales that do not belong to output channels"),
        ({"keep_activations": ("*",)}, "kept by request"),
    ],
)
def test_layers_that_integer_kernels_do_not_take_read_floating_point(fields, why):
    model = staged(Mixed(), {"activations": "dynamic", **fields})
    assert owners(model) == set()
    assert any("activations='dynamic'" in each for each in model.warnings)
    graph = model.main
    assert all(found or why == "kept by request" for found in dynamic_layers(graph, model.tensors).values())
    if why != "kept by request":
        assert any(why in found for found in dynamic_layers(graph, model.tensors).values())


def test_kept_layers_and_kept_activations_stay():
    model = staged(Mixed(), {"activations": "dynamic", "keep": ("up",), "keep_activations": ("head",)})
    assert owners(model) == {"again.weight", "right"}
    assert not isinstance(model.tensors.get("up.weight"), Quantized)
    assert "kept by request" in " ".join(left_in_floating_point(model).values())


def test_a_net_of_convolutions_is_told_that_nothing_is_dynamic():
    net = nn.Sequential(nn.Conv1d(6, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 1))
    model = staged(net, {"activations": "dynamic"}, shape=(16, 6, 9))
    assert model.main.dynamic == frozenset()
    (sentence,) = [each for each in model.warnings if "dynamic" in each]
    assert "use activations=8" in sentence


def test_static_grids_for_some_layers_and_dynamic_others():
    stages = {"layers": ("conv",), "activations": 8}, {"layers": ("up", "again", "head"), "activations": "dynamic"}
    torch.manual_seed(0)
    model = staged(Mixed(), *stages)
    assert owners(model) == {"up.weight", "again.weight", "head.weight"}
    assert model.main.activations
    torch.manual_seed(0)
    assert model.main.activations == staged(Mixed(), stages[0]).main.activations


def test_a_later_stage_of_static_grids_takes_layers_back():
    model = staged(Mixed(), {"activations": "dynamic"}, {"layers": ("head",), "activations": 8})
    assert "head.weight" not in owners(model)
    assert owners(model) == {"up.weight", "again.weight", "right"}


def test_only_the_layer_reads_rounded_values():
    net = nn.Linear(8, 8, bias=False)
    net.weight.data = torch.eye(8)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = net

        def forward(self, x):
            return self.layer(x) - x

    model = staged(Residual(), {"bits": 8, "activations": "dynamic"}, shape=(16, 8))
    x = torch.randn(32, 8)
    off = model.simulate()(x)
    step = (x.max() - x.min()) / 255
    assert 0.3 * step < off.abs().max() < 0.6 * step + 0.01 * x.abs().max()


def test_a_layer_that_reads_a_value_with_a_grid_is_not_dynamic():
    net = nn.Sequential(nn.Conv1d(6, 4, 1), nn.ReLU(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 2))
    stages = {"layers": ("0",), "activations": 8}, {"layers": ("2", "4"), "activations": "dynamic"}
    # The convolution writes codes, and the layer behind it reads them.
    assert owners(staged(net, *stages, shape=(16, 6, 9))) == {"4.weight"}


def test_inputs_that_are_constant_in_calibration_need_no_range():
    net, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), torch.zeros(16, 8)
    model = CompressedModel.of(trace(net, (x[:2],)))
    model = PostTrainingQuantize(activations="dynamic").run(model, Context(CalibrationInputs(((x,),))))
    assert (len(model.main.dynamic), model.warnings) == (2, ())


def test_pairs_of_products_fit_16_bits_and_all_sums_32():
    """Codes reach 255: 100,000 weights of 127 pass 2^31, and pairs of them 2^15."""
    net = nn.Linear(100_000, 3)
    net.weight.data = torch.linspace(0.9, 1.0, 3)[:, None].expand(3, 100_000).contiguous()
    model = staged(net, {"bits": 8, "activations": "dynamic"}, shape=(16, 100_000))
    assert owners(model) == {"weight"}
    codes = np.abs(model.tensors["weight"].codes.astype(np.int64))
    assert codes.sum(1).max() * 255 < 2**31
    assert codes.reshape(3, -1, 2).sum(2).max() <= 128
    assert np.abs(model.tensors["weight"].dense() - net.weight.detach().numpy()).max() < 0.02
    small = staged(nn.Linear(6, 3), {"bits": 7, "activations": "dynamic"}, shape=(16, 6))
    assert small.widened == {}


class TwoWays(nn.Module):
    """Two entry points on one body."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        return self.a(torch.relu(self.body(x)))

    def second(self, x):
        return self.b(torch.tanh(self.body(x)))


@pytest.mark.parametrize("wrong", [1, 9, "dynamc", "8", 8.0, True])
def test_other_activations_are_refused_in_one_sentence(wrong):
    with pytest.raises(SpecError, match=r"^quantize.activations: .*use the bits, 2 to 8, or dynamic, or None"):
        build_spec(PostTrainingQuantize, where="quantize", activations=wrong)


def test_each_graph_has_its_own_dynamic_layers():
    torch.manual_seed(0)
    net, x = TwoWays().eval(), torch.randn(32, 8)
    model = CompressedModel.of(trace_methods(net, {n: EntryPoint((x,), method=n) for n in ("forward", "second")}))
    given = Context({n: CalibrationInputs(((x,),)) for n in ("forward", "second")})
    model = PostTrainingQuantize(bits=8, activations="dynamic").run(model, given)
    assert {name: len(graph.dynamic) for name, graph in model.graphs.items()} == {"forward": 2, "second": 2}
    for name, graph in model.graphs.items():
        assert torch.allclose(model.simulate(graph=name)(x), getattr(net, name)(x), atol=0.05)
        assert len(graph.contents(name).dynamic) == 2


def taught(learner, **fields):
    before = learner.deployed(fold=False)
    after = PostTrainingQuantize(**fields).run(before, Context(CalibrationInputs(((data(64)[0],),))))
    adopt(learner, before, after)
    return after


def test_dynamic_layers_stay_dynamic_through_training():
    learner = fresh()
    after = taught(learner, bits=8, activations="dynamic")
    assert owners(after) == {"head.weight"}
    with torch.no_grad():
        learner.tensor("head.weight").mul_(0.5)
    done = learner.deployed()
    assert owners(done) == {"head.weight"}
    assert done.main.contents("main").dynamic
    assert np.isfinite(done.simulate()(data(8)[0]).numpy()).all()


def test_a_later_rule_with_grids_takes_dynamic_layers_over():
    learner = fresh()
    taught(learner, bits=8, activations="dynamic")
    learner.attach(Lsq(bits=4, activations=8).attach(learner))
    with torch.no_grad():
        learner.graph(train=True)(data(32)[0])
    done = learner.deployed()
    assert done.main.activations
    assert done.main.dynamic == frozenset()
