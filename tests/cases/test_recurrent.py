"""Recurrent nets as people have them: any length, states in PyTorch's layout, a step at a time, packed sequences.

Kind: the batch is not axis 0 of every input; lengths differ between batches; shapes depend on lengths.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import attar
from attar._src.cli import main
from attar._src.measure.runner import example_feed, open_runner


class AnyLength(nn.Module):
    """A tag at each step."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.rows, self.head = kind(10, 12, batch_first=True, **options), nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.rows(x)[0])


class State(AnyLength):
    """States come in and go out."""

    def forward(self, x, h, c):
        y, (h, c) = self.rows(x, (h, c))
        return self.head(y), h, c


class OneState(AnyLength):
    """A GRU has one state."""

    def forward(self, x, h):
        y, h = self.rows(x, h)
        return self.head(y), h


X = torch.randn(32, 7, 10, generator=torch.Generator().manual_seed(0))
ZEROS = torch.zeros(1, 32, 12)


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    return tmp_path / "m.attar"


@pytest.mark.parametrize("dynamic", [(0, 1), None, {"x": (0, 1)}])
def test_batches_of_several_lengths(dynamic, path):
    attar.quantize(AnyLength(), [(X,), (X[:, :4],)], dynamic=dynamic).save(path)
    assert attar.Session(path).run(np.zeros((3, 50, 10), np.float32)).shape == (3, 50, 5)


@pytest.mark.parametrize(
    ("dynamic", "line"), [((0,), r"write dynamic=\(0, 1\)"), ({"x": (0,)}, r"write dynamic=\{'x': \(0, 1\)\}")]
)
def test_a_length_that_is_fixed_has_the_line_to_write(dynamic, line):
    with pytest.raises(attar.DataError, match=rf"'x' has the lengths \[4, 7\] along axis 1.*{line}"):
        attar.quantize(AnyLength(), [(X,), (X[:, :4],)], dynamic=dynamic)


def test_single_examples_of_different_length(path):
    attar.quantize(AnyLength(), [(X[i : i + 1, : 3 + i],) for i in range(4)]).save(path)
    assert attar.Session(path).run(np.zeros((2, 9, 10), np.float32)).shape == (2, 9, 5)


@pytest.mark.parametrize(("options", "batch"), [({}, "batch"), ({"dynamic": (), "batch": 32}, 32)])
def test_states_in_the_layout_of_pytorch(options, batch, path):
    attar.quantize(State(), (X, ZEROS, ZEROS), **options).save(path)
    session = attar.Session(path)
    assert [port.shape for port in session.inputs] == [(batch, 7, 10), (1, batch, 12), (1, batch, 12)]
    assert [port.shape for port in session.outputs] == [(batch, 7, 5), (1, batch, 12), (1, batch, 12)]
    feed = example_feed(open_runner(path), 32)
    assert [array.shape for array in feed.values()] == [(32, 7, 10), (1, 32, 12), (1, 32, 12)]


def test_states_of_several_layers_beside_lengths_that_vary(path):
    h = torch.zeros(2, 32, 12)
    batches = [{"x": X, "h": h}, {"x": X[:9, :4], "h": h[:, :9]}]
    net = OneState(nn.GRU, num_layers=2)
    attar.quantize(net, batches, dynamic={"x": (0, 1), "h": (1,)}).save(path)
    session = attar.Session(path)
    assert [port.shape for port in session.inputs] == [("batch", "axis1", 10), (2, "batch", 12)]
    with pytest.raises(attar.DataError, match="batch is 3 in 'x'"):
        session.run({"x": np.zeros((3, 4, 10), np.float32), "h": np.zeros((2, 4, 12), np.float32)})


def test_a_state_as_large_as_the_batch_is_named():
    net, h = OneState(nn.GRU), torch.zeros(1, 4, 12)
    with pytest.raises(attar.DataError, match=r"'h' \(1, 4, 12\) has no axis of 32.*dynamic=\{'h': \(1,\)\}"):
        attar.quantize(net, (X, h))
    with pytest.raises(attar.AttarError, match="no input named 'state'"):
        attar.quantize(net, (X, ZEROS), dynamic={"state": (1,)})


def test_a_stream_one_step_at_a_time_equals_the_whole_sequence(path):
    attar.quantize(State(), (X[:, :2], ZEROS, ZEROS), bits=8, dynamic={"x": (0, 1), "h": (1,), "c": (1,)}).save(path)
    session, x = attar.Session(path), X[:3].numpy()
    state = {name: np.zeros((1, 3, 12), np.float32) for name in ("h", "c")}
    whole = session.run({"x": x, **state})
    steps = []
    for step in range(7):
        y, *states = session.run({"x": x[:, step : step + 1], **state}).values()
        state = dict(zip(("h", "c"), states, strict=True))
        steps.append(y)
    first, *last = whole.values()
    np.testing.assert_allclose(np.concatenate(steps, axis=1), first, atol=1e-5)
    np.testing.assert_allclose(state["h"], last[0], atol=1e-5)
    np.testing.assert_allclose(state["c"], last[1], atol=1e-5)


class Packed(nn.Module):
    """Outputs at each step of padded sequences, and the final state."""

    def __init__(self, kind, *, ordered=False, total=True, fill=0.0, **options):
        super().__init__()
        self.rows = kind(10, 12, **options)
        self.between, self.ordered, self.total, self.fill = nn.Linear(10, 10), ordered, total, fill

    def forward(self, x, lengths):
        first = self.rows.batch_first
        x = x if first else x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=first, enforce_sorted=self.ordered)
        packed = PackedSequence(self.between(packed.data), *packed[1:])
        y, state = self.rows(packed)
        total = x.shape[1 if first else 0] if self.total else None
        y, lengths = pad_packed_sequence(y, batch_first=first, padding_value=self.fill, total_length=total)
        return y if first else y.transpose(0, 1), state[0] if isinstance(state, tuple) else state, lengths


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True, "total": False},
        {"batch_first": True, "bidirectional": True, "num_layers": 2},
        {"bias": False, "ordered": True, "fill": -3.0},
    ],
    ids=["no total length", "deep", "ordered"],
)
def test_packed_sequences(kind, options, path):
    net = Packed(kind, **options).eval()
    lengths = torch.tensor([7, 6, 6, 5, 3, 2, 1, 1] * 4).sort(descending=True).values
    data = {"x": X, "lengths": lengths if options.get("ordered") else lengths.roll(9)}
    quantized = attar.quantize(net, data, bits=8, dynamic=(0, 1))
    quantized.save(path)
    x = torch.randn(3, 9, 10)
    n = torch.tensor([9, 4, 1]) if options.get("ordered") else torch.tensor([4, 9, 1])
    got = attar.Session(path).run({"x": x.numpy(), "lengths": n.numpy()})
    for mine, exact, own in zip(got.values(), quantized.module(x, n), net(x, n), strict=True):
        np.testing.assert_allclose(mine, exact.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(mine, own.detach().numpy(), atol=0.05)


def test_packed_sequences_shorter_than_their_batch_have_a_way_out():
    data = {"x": X, "lengths": torch.full((32,), 5)}
    with pytest.raises(attar.ParityError, match=r"\(\d+, 7, 12\) in the file and \(\d+, 5, 12\).*total_length=x.shape"):
        attar.quantize(Packed(nn.LSTM, batch_first=True, total=False), data)


def test_the_command_line_takes_axes_by_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.rows, self.head = nn.GRU(10, 12, batch_first=True), nn.Linear(12, 5)\n\n"
        "    def forward(self, x):\n        return self.head(self.rows(x)[0])\n"
    )
    torch.save(AnyLength(nn.GRU).state_dict(), tmp_path / "w.pt")
    np.savez(tmp_path / "d.npz", x=X.numpy())
    monkeypatch.chdir(tmp_path)
    command = ["quantize", "nets.py:Net", "-w", "w.pt", "-d", "npz:d.npz", "-o", "m.attar", "--json"]
    for axes in (["--dynamic", "0", "--dynamic", "1"], ["--dynamic", "x=0,1"]):
        assert main([*command, *axes]) == 0
        assert json.loads(capsys.readouterr().out)["file_bytes"]
        assert attar.Session("m.attar").inputs[0].shape == ("batch", "axis1", 10)
    assert main([*command, "--dynamic", "x:1"]) == 2
    assert "--dynamic 'x:1': write AXIS or NAME=AXIS,AXIS" in capsys.readouterr().err
    assert main(["bench", "m.attar", "--json"]) == 0
