"""A sound file on an empty axis: an empty array where that is the answer, else a DataError; never a dead process.

The kind: operators of ONNX Runtime that need elements (recurrence, convolution, pooling, norms over space) and get
none, from an input of size 0 or because an axis becomes 0 on the way.
"""

import json
import sys

import pytest
import torch
from tests.cases.bounded import ends
from torch import nn

import attar

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are the system's own")


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0])


class Tail(nn.Module):
    """Skips three steps, so that an axis of 3 becomes empty inside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 4, 3, padding=1)

    def forward(self, x):
        return self.layer(x[:, :, 3:]).mean(-1)


def norm():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 2, 1))


#: Name -> module, its shape, its axes of any length, and shapes with how each ends.
CASES = {
    "gru": (lambda: Recurrent(nn.GRU), (8, 5, 3), (0,), {(0, 5, 3): "DataError", (1, 5, 3): "ran"}),
    "lstm": (lambda: Recurrent(nn.LSTM), (8, 5, 3), (0,), {(0, 5, 3): "DataError", (1, 5, 3): "ran"}),
    "tail": (Tail, (8, 2, 9), (0, 2), {(8, 2, 3): "DataError", (8, 2, 5): "ran"}),
    "instance_norm": (norm, (8, 2, 6, 6), (0, 2), {(0, 2, 6, 6): "ran", (8, 2, 0, 6): "DataError"}),
    "transposed_3d": (
        lambda: nn.Sequential(nn.ConvTranspose3d(2, 2, (3, 1, 1), dilation=(2, 1, 1))),
        (8, 2, 5, 3, 4),
        (0, 2),
        {(0, 2, 5, 3, 4): "ran", (8, 2, 0, 3, 4): "DataError"},
    ),
    "transposed_1d": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 2, 3)),
        (8, 2, 5),
        (0, 2),
        {(8, 2, 0): "DataError", (8, 2, 1): "ran"},
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        (8, 2, 6, 6),
        (0, 2),
        {(0, 2, 6, 6): "ran", (8, 2, 0, 6): "DataError"},
    ),
    "linear": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)),
        (8, 4, 6),
        (0, 1),
        {(0, 4, 6): "ran", (8, 0, 6): "ran"},
    ),
}


def test_sound_files_on_empty_axes(tmp_path):
    wanted = {}
    for name, (make, shape, dynamic, runs) in CASES.items():
        torch.manual_seed(0)
        data = torch.randn(*shape)
        attar.quantize(make().eval(), data, bits=8, examples=8, dynamic=dynamic).save(tmp_path / "made.attar")
        for number, (given, end) in enumerate(runs.items()):
            path = tmp_path / "runs" / f"{name}_{number}.attar"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((tmp_path / "made.attar").read_bytes())
            (port,) = attar.open_artifact(path).graph_record().inputs
            path.with_suffix(".json").write_text(json.dumps({port.name: given}))
            wanted[path.name] = end
    found = ends(tmp_path / "runs")
    assert {name: end.partition(":")[0] for name, end in found.items()} == wanted, found
    assert "leave nothing to compute" in found["gru_0.attar"]
    assert "make every axis longer" in found["gru_0.attar"]
