"""Which dynamic layers scale the rows of what they read."""

import pytest
import torch
from tests.methods.test_dynamic_layers import staged
from torch import nn

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.row_scales import LEAST_GAIN
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context
from attar._src.work.dynamic_rounding import DynamicRound


class Tokens(nn.Module):
    """Two layers read one value; a third reads their sum over its size."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.last = nn.Linear(16, 8), nn.Linear(16, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        both = self.one(x) + self.other(x)
        return self.last(both / both.norm(dim=-1, keepdim=True))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def spread(*shape):
    """Rows of which one in sixteen is a hundred times larger."""
    x = torch.randn(*shape)
    x[:, ::16] *= 100
    return x


def readers(model, *weights):
    return {reader for name in weights for reader in model.weights()[name].readers}


def test_rounding_rows_by_hand():
    x = torch.tensor([[100.0, -50.0], [1.0, 0.5], [0.0, 0.0]])
    step = 1.5 / 255  # of the quotients 1, -0.5, 1, 0.5 and 0
    over = torch.tensor([[1.0, -0.5], [1.0, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(
        DynamicRound(rows=True)(x), (over / step).round() * step * torch.tensor([[100], [1], [0]])
    )
    assert float(DynamicRound()(x)[1, 1]) == pytest.approx(150 / 255)


def test_layers_whose_rows_differ_in_size_scale_them(tmp_path):
    x = spread(32, 32, 16)
    result = attar.quantize(Tokens().eval(), x, bits=8, activations="dynamic")
    graph = result.compressed.main
    assert graph.rows == readers(result.compressed, "one.weight", "other.weight")
    assert graph.dynamic - graph.rows == readers(result.compressed, "last.weight")
    gain = float(result.compressed.notes["rows"].split(" dB")[0].split()[-1])
    assert LEAST_GAIN < gain < 45
    result.save(tmp_path / "m.attar")
    assert len(open_artifact(tmp_path / "m.attar").graph_record().rows) == 2
    loaded = attar.load(tmp_path / "m.attar", into=Tokens())
    with torch.no_grad():
        torch.testing.assert_close(loaded(x[:4]), result.module(x[:4]))


def test_rows_alike_in_size_share_a_range():
    model = staged(Tokens(), {"bits": 8, "activations": "dynamic"}, shape=(16, 5, 16))
    assert model.main.dynamic
    assert not model.main.rows
    assert "rows" not in model.notes


def test_layers_that_are_dynamic_no_more_scale_no_rows():
    x = spread(32, 32, 16)
    model = CompressedModel.of(trace(Tokens().eval(), (x[:2],)))
    for fields in ({"activations": "dynamic"}, {"layers": ("one", "other"), "activations": 8}):
        model = PostTrainingQuantize(bits=8, **fields).run(model, Context(CalibrationInputs(((x,),))))
    assert model.main.dynamic == readers(model, "last.weight")
    assert not model.main.rows
