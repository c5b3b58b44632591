"""The whole way for every kind of model: quantize, pack, run, parity, and back into PyTorch."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import attar
import attar._src.deploy.quantize as quantizing
from attar._src.artifact.inspect import inspect_artifact
from attar._src.core.registry import load_object
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.runtime.preprocess import preprocess
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.usefixtures("one_thread")


def order(count, seed):
    """Sequences ``(count, 10)`` of tokens, and which of the tokens 0 and 1 comes first."""
    rng = np.random.default_rng(seed)
    tokens, places = rng.integers(2, 16, (count, 10)), rng.random((count, 10)).argsort(1)[:, :2]
    np.put_along_axis(tokens, places, np.array([[0, 1]]), 1)
    return tokens, (places[:, 0] < places[:, 1]).astype(np.int64)


def untrained(kind):
    return load_object(f"{EXAMPLES / 'sequence.py'}:{kind}")()


def otherwise(quantized, **options):
    """The same network, quantized with other options."""
    traced = quantized.compressed.graphs["main"].traced
    compressed = PostTrainingQuantize(**options).run(CompressedModel.of(traced), Context(quantized.data))
    return replace(quantized, compressed=shorten_numbers(compressed))


@functools.cache
def trained(kind):
    """A sequence classifier that has learned which of two tokens comes first."""
    torch.manual_seed(0)
    net = untrained(kind)
    x, y = map(torch.from_numpy, order(2048, 0))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(3 if kind == "encoder" else 5):
        for chosen in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return net.eval(), x[:256]


@pytest.mark.parametrize("kind", ["lstm", "gru", "encoder"])
def test_sequence_models_take_the_whole_way(kind, tmp_path):
    net, examples = trained(kind)
    x, y = order(1024, 1)
    with torch.no_grad():
        before = float((net(torch.from_numpy(x)).argmax(1).numpy() == y).mean())
    assert before > 0.9
    path = tmp_path / f"{kind}.attar"
    keep = ("positions",) if kind == "encoder" else ()
    quantized = attar.quantize(net, examples, bits=4, activations=8, keep=keep)
    report = quantized.save(path)
    assert report["parity"]["equal_predictions"] > 0.98
    session = attar.Session(path)
    session.artifact.verify()
    assert evaluate_accuracy(session, x, y).accuracy > before - 0.03
    size = inspect_artifact(session.artifact)
    assert size["weights_bytes"] < 0.3 * 4 * size["parameters"]
    # Every weight is in the file as four-bit codes, recurrent, embedding and linear alike; what is not, is said.
    floating = {t["name"] for t in size["tensors"] if len(t["shape"]) == 2 and t["kind"] != "quantized"}
    left = {name for name, why in report["left_in_floating_point"].items() if "attention" not in why}
    assert floating == left == ({"positions"} if kind == "encoder" else set())
    attention = set(report["left_in_floating_point"]) - left
    assert len(attention) == (2 if kind == "encoder" else 0)
    # Back in PyTorch it is the same function.
    again = attar.load(path, into=untrained(kind))
    x = torch.from_numpy(x[:64])
    assert torch.allclose(again(x), quantized.module(x), atol=1e-5)
    # It is the function of the file too, to float32's order of summation where activations are floating.
    otherwise(quantized, bits=4, keep=keep).save(path)
    again = attar.load(path, into=untrained(kind))
    assert np.abs(again(x).numpy() - attar.Session(path).run(x.numpy())).max() < 1e-5


def test_encoder_layers_run_in_integers(tmp_path):
    net, examples = trained("encoder")
    attar.quantize(net, examples, bits=8, activations=8, keep=["positions"]).save(tmp_path / "m.attar")
    assert len(attar.Session(tmp_path / "m.attar").integer_layers()) >= 6


@pytest.fixture(scope="module")
def digits():
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    x = preprocess(train.preprocessing, train.x)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, images, labels = load_object(f"{EXAMPLES / 'digits.py'}:DigitNet")(), torch.from_numpy(x), train.y
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for _ in range(4):
        for chosen in torch.randperm(len(images)).split(64):
            loss = torch.nn.functional.cross_entropy(net(images[chosen]), torch.from_numpy(labels)[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval(), x, train, test


@pytest.fixture(scope="module")
def exported(digits):
    """A quantized ``DigitNet`` from which others are made without another export, most of the time of a test."""
    net, x, _, _ = digits
    return attar.quantize(net, x)


def test_convolutions_in_integers(digits, tmp_path):
    net, x, train, test = digits
    path = tmp_path / "m.attar"
    quantized = attar.quantize(net, x, bits=4, activations=8, preprocessing=train.preprocessing)
    report = quantized.save(path)
    assert report["parity"]["equal_predictions"] > 0.99
    assert set(report["batch_norms_folded"]) == {f"norms.{i}" for i in range(4)}
    session = attar.Session(path)
    assert len(session.integer_layers()) == len(session.layers) == 5
    assert evaluate_accuracy(session, test.x, test.y).accuracy > 0.95
    raw = test.x[:50]
    again = attar.load(path, into=type(net)())
    inputs = torch.from_numpy(session.preprocess(raw))
    assert torch.allclose(again(inputs), quantized.module(inputs), atol=1e-5)
    assert np.mean(session.run(inputs.numpy()).argmax(1) == again(inputs).argmax(1).numpy()) > 0.97


def test_below_eight_bits_of_activation(exported, tmp_path):
    otherwise(exported, bits=4, activations=5, observer="mse").save(tmp_path / "m.attar")
    assert len(attar.Session(tmp_path / "m.attar").integer_layers()) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "group:18"},
        {"granularity": "bucket:256"},
        {"granularity": "tensor", "activations": 8},
        {"symmetric": False},
        {"scales": "mse", "correct_bias": False},
        {"bits": 2, "overrides": {"convs.0": 8, "head": 8}},
    ],
    ids=str,
)
def test_every_scheme_survives_the_file(exported, tmp_path, options):
    quantized = otherwise(exported, **options)
    quantized.save(tmp_path / "m.attar")
    artifact = attar.open_artifact(tmp_path / "m.attar")
    for name, tensor in quantized.compressed.stored().items():
        assert np.array_equal(artifact.tensor(name).dense(), tensor.dense())
    assert len(attar.Session(artifact).integer_layers()) == (5 if options.get("activations") else 0)


def test_loading_fills_the_module_itself(digits, exported, tmp_path):
    net, x, _, _ = digits
    quantized = otherwise(exported, bits=6)
    quantized.save(tmp_path / "m.attar")
    empty = type(net)()
    traced = attar.load(tmp_path / "m.attar", into=empty)
    inputs = torch.from_numpy(x[:40])
    assert torch.allclose(empty.eval()(inputs), traced(inputs), atol=1e-4)
    assert torch.allclose(traced(inputs), quantized.module(inputs), atol=1e-5)


def test_loading_into_another_module_is_refused(digits, exported, tmp_path):
    net, _, _, _ = digits
    exported.save(tmp_path / "m.attar")
    with pytest.raises(attar.ModelError, match=r"the file was made from another module: convs\.0\.weight is"):
        attar.load(tmp_path / "m.attar", into=type(net)(width=16))


def test_the_same_call_writes_the_same_bytes_and_leaves_the_module_alone(digits, tmp_path):
    net, x, _, _ = digits
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for name in ("a", "b"):
        attar.quantize(net, x, activations=8).save(tmp_path / f"{name}.attar")
    assert (tmp_path / "a.attar").read_bytes() == (tmp_path / "b.attar").read_bytes()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_file_that_fails_parity_is_not_written(exported, tmp_path, monkeypatch):
    quantized = exported
    simulate = type(quantized.compressed).simulate

    def wrong(self, *args, **options):
        graph = simulate(self, *args, **options)
        with torch.no_grad():
            next(graph.parameters()).mul_(1.5)
        return graph

    monkeypatch.setattr(type(quantized.compressed), "simulate", wrong)
    with pytest.raises(attar.ParityError):
        quantized.save(tmp_path / "m.attar")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_deployed_is_named_before_any_work():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return torch.special.airy_ai(self.layer(x))

    with pytest.raises(attar.ModelError, match="airy_ai"):
        attar.quantize(Odd(), torch.randn(8, 4))


def test_a_layer_that_is_traced_wrong_does_not_pass_the_dry_run(digits, monkeypatch):
    net, x, _, _ = digits
    right = quantizing.trace

    def wrong(*args, **kwargs):
        traced = right(*args, **kwargs)
        with torch.no_grad():
            traced.graph.get_parameter("convs.1.weight").mul_(1.1)
        return traced

    monkeypatch.setattr(quantizing, "trace", wrong)
    with pytest.raises(attar.ParityError, match="dry run"):
        attar.quantize(net, x)


def test_a_convolution_and_a_linear_layer_that_read_the_same():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(6, 4, 3), nn.Linear(9, 4)

        def forward(self, x):
            return self.conv(x).mean(2) + self.head(x).mean(1)

    torch.manual_seed(0)
    quantized = attar.quantize(Both(), torch.randn(64, 6, 9) + 1, bits=3)
    assert {"conv.bias", "head.bias"} <= set(quantized.compressed.tensors)


def test_batches_of_one_and_states_of_zeros(tmp_path):
    class Start(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            start = torch.zeros(1, x.shape[0], 5)
            return self.head(self.rnn(x, (start, start))[0][:, -1])

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.randn(8, 6, 4), batch_size=1)
    report = attar.quantize(Start(), loader, bits=8, activations=8).save(tmp_path / "m.attar")
    assert report["parity"]["examples"] == 8


def test_a_foreign_report_is_found_before_anything_is_written(exported, tmp_path):
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(attar.AttarError, match="is not a report"):
        exported.save(tmp_path / "m.attar")
    assert not (tmp_path / "m.attar").exists()


def test_a_fixed_batch(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x.reshape(len(x), -1))

    attar.quantize(Fixed(), torch.randn(10, 2, 3), dynamic=(), batch=4, activations=8).save(tmp_path / "m.attar")
    assert attar.Session(tmp_path / "m.attar").run(np.zeros((4, 2, 3), np.float32)).shape == (4, 3)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_both_ways_and_time_first(kind, tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(6, 5, 2, bidirectional=True), nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.rnn(x.transpose(0, 1))[0][-1])

    torch.manual_seed(0)
    report = attar.quantize(Both(), torch.randn(32, 7, 6), bits=4, activations=8).save(tmp_path / "m.attar")
    assert report["parity"]["equal_predictions"] == 1.0


def test_two_inputs_and_two_outputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(5, 8)

        def forward(self, left, right):
            y = torch.relu(self.a(left)) + torch.relu(self.b(right))
            return y, y.mean(1)

    torch.manual_seed(0)
    left, right = torch.randn(64, 6), torch.randn(64, 5)
    quantized = attar.quantize(Two(), (left, right), bits=8, activations=8)
    quantized.save(tmp_path / "m.attar")
    found = attar.Session(tmp_path / "m.attar").run({"left": left.numpy(), "right": right.numpy()})
    for got, want in zip(found.values(), quantized.module(left, right), strict=True):
        assert np.abs(got - want.numpy()).max() < 1e-5
