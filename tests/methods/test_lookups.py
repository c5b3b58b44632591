"""The Hessian of the rows of a table: of what is looked up, by what it does to the outputs."""

import numpy as np
import torch
from torch import nn

from attar._src.core.scheme import PerChannel, Scheme
from attar._src.deploy.dry_run import example_of
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.solvers.lookups import lookup_hessians
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.statistics import InputHessian
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


class Bag(nn.Module):
    """Words ``(N, 3)`` -> ``(N, 4)``, a sum over the words of a map that sees few directions of a vector of 12."""

    def __init__(self):
        super().__init__()
        self.table, self.map = nn.Embedding(40, 12), nn.Linear(12, 4)
        with torch.no_grad():
            self.map.weight.mul_(torch.tensor([[0.3], [0.1], [0.03], [0.01]]))

    def forward(self, words):
        return self.map(self.table(words).sum(1))


def net_and_inputs(make=Bag):
    torch.manual_seed(0)
    net = make().eval()
    inputs = CalibrationInputs(((torch.randint(0, 40, (256, 3)),),))
    example, axes, _ = example_of(inputs, None)
    return net, CompressedModel.of(trace(net, example, dynamic=axes)), inputs


def found_in(model, inputs):
    graph = model.main.traced
    tables = {"table.weight": model.weights()["table.weight"].readers}
    (name,) = (port.name for port in graph.outputs)
    return lookup_hessians(graph.graph, tables, inputs, Labelled(), name, cut=True)


def test_of_a_linear_map_it_is_the_product_of_the_map_with_itself():
    """The fault: gradients of other values, of one class, or without the random signs."""
    net, model, inputs = net_and_inputs()
    matrix = found_in(model, inputs)["table.weight"].matrix[0]
    weight = net.map.weight.detach().double().numpy()
    wanted = 2 * weight.T @ weight
    assert np.abs(matrix - wanted).max() < 0.2 * np.abs(wanted).max()


def test_a_table_is_rounded_for_the_outputs_and_is_not_unseen():
    """The fault: the table is rounded to the nearest of each element, whatever the layers behind see of it."""
    net, model, inputs = net_and_inputs()
    (x,) = inputs.batches[0]
    errors = {}
    for solver in ("mse", "gptq"):
        done = PostTrainingQuantize(bits=3, scales=solver, keep=("map",)).run(model, Context(inputs))
        assert "without_inputs" not in done.record[0]
        with torch.no_grad():
            errors[solver] = float((done.simulate()(x) - net(x)).square().mean())
    assert errors["gptq"] < 0.5 * errors["mse"]


def test_a_table_that_the_output_does_not_depend_on_is_rounded_by_itself():
    class Idle(Bag):
        def forward(self, words):
            return self.map((self.table(words).sum(1) > 0).float())

    _, model, inputs = net_and_inputs(Idle)
    assert found_in(model, inputs) == {}
    done = PostTrainingQuantize(bits=3, scales="gptq").run(model, Context(inputs))
    alone = SOLVERS["mse"].solve(model.state()["table.weight"].numpy(), Scheme(bits=3, granularity=PerChannel()))
    assert done.record[0]["without_inputs"] == ["table.weight"]
    assert np.array_equal(done.tensors["table.weight"].codes, alone.codes)


def test_the_same_inputs_give_the_same_hessian():
    _, model, inputs = net_and_inputs()
    one, other = (found_in(model, inputs)["table.weight"] for _ in range(2))
    assert isinstance(one, InputHessian)
    assert np.array_equal(one.matrix, other.matrix)
