import numpy as np
import torch
from torch import nn

from attar._src.artifact.manifest import Activation
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, Round
from attar._src.work.context import Context


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_rounding_is_the_formats_equation():
    grid = Activation(value="x", bits=3, scale=0.5, zero_point=2)
    x = torch.tensor([-5.0, -0.25, 0.0, 0.24, 0.25, 0.75, 2.4, 9.0])
    codes = np.clip(np.rint(x.numpy() / 0.5) + 2, 0, 7)
    assert Round(grid)(x).tolist() == ((codes - 2) * 0.5).tolist()
    assert torch.equal(Round(grid)(Round(grid)(x)), Round(grid)(x))


def test_an_untouched_piece_simulates_the_module():
    module, x = net(), torch.randn(5, 6)
    piece = CompressedModel.of(trace(module, (x,)))
    assert torch.allclose(piece.simulate()(x), module(x), atol=1e-6)
    assert torch.allclose(piece.simulate(torch.float64)(x.double()), module.double()(x.double()), atol=1e-12)


def test_a_simulation_changes_neither_the_piece_nor_the_module():
    module, x = net(), torch.randn(5, 6)
    piece = CompressedModel.of(trace(module, (x,)))
    before = piece.main.traced.graph(x)
    done = PostTrainingQuantize(bits=2, activations=4).run(piece, Context(CalibrationInputs(((x,),))))
    assert not torch.allclose(done.simulate()(x), before, atol=1e-2)
    assert torch.equal(piece.main.traced.graph(x), before)
    assert torch.equal(piece.simulate()(x), before)
    assert torch.allclose(module(x), before, atol=1e-6)


def test_simulated_activations_lie_on_their_grids():
    module, x = net(), torch.randn(64, 6)
    done = PostTrainingQuantize(bits=4, activations=4).run(
        CompressedModel.of(trace(module, (x,))), Context(CalibrationInputs(((x,),)))
    )
    graph = done.simulate()
    seen = {}
    for name, child in graph.named_modules():
        if isinstance(child, Round):
            child.register_forward_hook(lambda module, _, out, name=name: seen.__setitem__(name, out))
    graph(x)
    assert set(seen) == {"site_input_1", "site_relu"}
    for name, value in seen.items():
        grid = done.main.activations[name.removeprefix("site_")]
        assert len(value.unique()) <= 16
        codes = value / grid.scale
        assert torch.allclose(codes, codes.round(), atol=1e-4)


def test_a_simulation_in_float64_computes_in_float64_along_the_way():
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    x = torch.randn(2, 3, 4)
    piece = CompressedModel.of(trace(Rnn(), (x,)))
    assert piece.simulate(torch.float64)(x.double()).dtype == torch.float64


def test_tensors_made_from_nothing_follow():
    class Start(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x):
            start = torch.zeros(1, x.shape[0], 5)
            return self.rnn(x, (start, start))[0] + torch.arange(5.0)

    x = torch.randn(2, 3, 4)
    piece = CompressedModel.of(trace(Start(), (x,)))
    assert torch.allclose(piece.simulate(torch.float64)(x.double()).float(), piece.simulate()(x), atol=1e-5)


def test_contents_hold_what_the_user_is_told():
    piece = CompressedModel.of(trace(net(), (torch.randn(2, 6),)))
    contents = piece.contents(FileInfo(task="classification", class_names=("a", "b", "c"), licence="mine"))
    assert contents.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert contents.class_names == ("a", "b", "c")
    assert contents.licence == "mine"
    assert set(contents.tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_an_example_is_of_batches_of_one_shape():
    def batch(n, length):
        return torch.full((n, length), float(n)), torch.zeros(n, 2)

    several = CalibrationInputs((batch(1, 4), batch(2, 5), batch(3, 4), batch(9, 6)))
    assert [tuple(each.shape) for each in several.example(2)] == [(2, 5), (2, 2)]
    assert several.example(4)[0][:, 0].tolist() == [1, 3, 3, 3]
    assert tuple(several.example(20)[0].shape) == (9, 6)
    assert tuple(CalibrationInputs((batch(2, 4), batch(3, 4))).example(4)[0].shape) == (4, 4)
