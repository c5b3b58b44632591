"""Called perfect when it is not: parity compares a file with its own simulation, so a loss in rounding never shows.

Each network here has one weight or value that few bits ruin. Its report should have the loss against the floating-point
module in the measure that fits the output, and a warning that names the culprit and says what to write; written so, the
loss is gone.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attar


class Speaker(nn.Module):
    """A unit embedding of a sequence; one column of one recurrent matrix is far larger than the others."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 32, 2, batch_first=True)
        self.out = nn.Linear(32, 24)
        with torch.no_grad():
            self.lstm.weight_hh_l0[:, 3] = 40.0
            # Its unit stays zero: the column counts for nothing, but the scale that it gives to the others does.
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(self.lstm, name)[3::32] = 0.0

    def forward(self, x):
        found = self.out(self.lstm(x)[0][:, -1])
        return found / found.norm(dim=1, keepdim=True)


class Price(nn.Module):
    """A regression head: a large constant and a small signal, with one layer of scales far apart."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 1)
        with torch.no_grad():
            self.first.weight[:, 0] = 60.0

    def forward(self, x):
        return 1000 + self.last(torch.tanh(self.first(x)))


class Depth(nn.Module):
    """A map of values: its second convolution has one input channel that is always nearly zero."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            self.first.weight[5], self.first.bias[5] = 0.0, 0.001
            self.second.weight[:, 5] = 50.0

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Classes(Depth):
    """The same as scores of four classes for each pixel."""


def made(kind, x, tmp_path, **options):
    torch.manual_seed(0)
    net = kind().eval()
    quantized = attar.quantize(net, x, **options)
    report = quantized.save(tmp_path / "m.attar")
    with torch.no_grad():
        want = net(x).numpy()
    return report, attar.Session(tmp_path / "m.attar").run(x.numpy()), want


def inputs(kind):
    generator = torch.Generator().manual_seed(1)
    shapes = {Speaker: (128, 6, 16), Price: (200, 12), Depth: (64, 3, 10, 10), Classes: (64, 3, 10, 10)}
    x = torch.randn(shapes[kind], generator=generator)
    if kind is Price:
        x[:, 0] *= 0.01
    return x


CASES = [
    (Speaker, {"bits": 8}, "lstm.weight_hh_l0"),
    (Price, {"bits": 8}, "first.weight"),
    (Depth, {"bits": 6}, "second.weight"),
    (Classes, {"bits": 6, "task": "segmentation"}, "second.weight"),
]


@pytest.mark.parametrize(("kind", "options", "culprit"), CASES)
def test_a_loss_is_a_warning_that_names_its_cause_and_the_fix(tmp_path, kind, options, culprit):
    x = inputs(kind)
    with pytest.warns(attar.AttarWarning, match="the floating module"):
        report, got, want = made(kind, x, tmp_path, **options)
    # What was called perfect.
    assert report["parity"]["equal_predictions"] > 0.99
    (warning,) = report["warnings"]
    assert f"the weight {culprit} (" in warning
    assert f"keep={(culprit,)!r}" in warning
    (seen,) = report["fidelity"]["outputs"].values()
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert seen["relative_error"] == pytest.approx(error, rel=0.02)
    if kind is Classes:
        assert seen["kind"] == "scores"
        share = (got.argmax(1) == want.argmax(1)).mean()
        assert seen["equal_predictions"] == pytest.approx(share, abs=1e-3)
        assert share < 0.95
    else:
        assert seen["kind"] == "values"
        assert seen["signal_to_noise_db"] < 15
        assert "equal_predictions" not in seen
    report, _, _ = made(kind, x, tmp_path, keep=(culprit,), **options)
    assert report["warnings"] == []


@pytest.mark.parametrize("tolerance", [None, {"signal_to_noise_db": -20.0}])
def test_a_tolerance_is_the_users(tmp_path, tolerance):
    assert made(Price, inputs(Price), tmp_path, bits=8, tolerance=tolerance)[0]["warnings"] == []


def test_an_unknown_tolerance_is_refused_by_name(tmp_path):
    with pytest.raises(attar.SpecError, match="did you mean 'signal_to_noise_db'"):
        made(Price, inputs(Price), tmp_path, tolerance={"signal_to_noise": 3.0})


def test_labels_judge_the_floating_module_and_the_file(tmp_path):
    x = inputs(Price)
    torch.manual_seed(0)
    with torch.no_grad():
        y = Price()(x)
    y = y + 0.1 * y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    with pytest.warns(attar.AttarWarning, match="mean_squared_error goes from"):
        report, got, want = made(Price, x, tmp_path, bits=8, labels=y)
    metric = report["fidelity"]["metric"]
    assert metric["floating"] == pytest.approx(float(((want - y.numpy()) ** 2).mean()), rel=1e-3)
    assert metric["file"] == pytest.approx(float(((got - y.numpy()) ** 2).mean()), rel=1e-3)
    assert metric["file"] > 1.5 * metric["floating"]


class Ranked(nn.Module):
    """Scores, the winner, the best three, whether the score is positive, an empty output and a scalar."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x):
        scores = self.net(x)
        return scores, scores.argmax(1), scores.topk(3).indices, scores[:, 0] > 0, scores[:, :0], scores.mean()


def test_integers_booleans_scalars_and_empty_outputs_are_compared_as_what_they_are(tmp_path):
    torch.manual_seed(0)
    report = attar.quantize(Ranked(), torch.randn(200, 8), bits=8, activations=8).save(tmp_path / "m.attar")
    seen = [*report["fidelity"]["outputs"].values()]
    assert [each["kind"] for each in seen] == ["values", "integers", "integers", "integers", "values", "values"]
    assert all(each["equal"] > 0.9 for each in seen if each["kind"] == "integers")


class Constant(nn.Module):
    """A map of near-equal values: any rounding changes which channel is the largest, which says nothing."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        with torch.no_grad():
            self.conv.weight[1:] = self.conv.weight[:1] * torch.linspace(1, 1.001, 6)[1:, None, None, None]
            self.conv.bias.fill_(2.0)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("bits", [(8, 8), (8, 4)])
def test_no_refusal_by_a_measure_that_does_not_fit(tmp_path, bits):
    torch.manual_seed(0)
    data = torch.randn(64, 3, 8, 8)
    quantized = attar.quantize(Constant(), data, bits=bits[0], activations=bits[1])
    report = quantized.save(tmp_path / "m.attar")
    assert report["parity"]["mean_difference"] < 1e-3 * report["parity"]["mean_output"]


def digits_by(width):
    """A net that knows its labels: classes, yes or no, or a number for each example."""
    torch.manual_seed(0)
    x, net = torch.randn(400, 8), nn.Linear(8, width)
    y = net(x).detach()
    return net, x, {1: (y[:, 0] > 0).long(), 2: y, 3: y.argmax(1)}[width]


@pytest.mark.parametrize("form", ["pair", "loader", "labels by name", "data set", "given"])
@pytest.mark.parametrize(("width", "metric"), [(1, "binary_accuracy"), (2, "mean_squared_error"), (3, "accuracy")])
def test_labels_in_the_data_give_the_report_its_metric(tmp_path, form, width, metric):
    net, x, y = digits_by(width)
    data = {
        "pair": (x, y),
        "loader": DataLoader(TensorDataset(x, y), batch_size=50),
        "labels by name": {"input": x, "labels": y, "weight": x},
        "data set": TensorDataset(x, y),
        "given": x,
    }[form]
    given = {"labels": y} if form == "given" else {}
    report = attar.quantize(net, data, bits=8, tolerance=None, **given).save(tmp_path / "m.attar")
    found = report["fidelity"]["metric"]
    assert (found["name"], found["examples"]) == (metric, 400)
    assert found["floating"] == pytest.approx(0 if width == 2 else 1, abs=1e-9)
    assert abs(found["file"] - found["floating"]) < 0.03
    said = {"data": "weight is no argument of the module's forward, which does not see it"}
    assert report["notes"] == (said if form == "labels by name" else {})


def test_labels_of_another_task_are_not_used(tmp_path):
    """A loader of an autoencoder has the classes of its images, which its outputs do not score."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(200, 8), torch.randint(0, 8, (200,))), batch_size=50)
    report = attar.quantize(nn.Linear(8, 8), loader, bits=8).save(tmp_path / "m.attar")
    assert "metric" not in report["fidelity"]
    assert next(iter(report["fidelity"]["outputs"].values()))["kind"] == "values"
    assert report["warnings"] == []


class TwoHeads(nn.Module):
    """The first output is large and rounded worst; the metric judges the second."""

    def __init__(self):
        super().__init__()
        self.tokens, self.cls = nn.Linear(12, 6), nn.Linear(12, 4)
        with torch.no_grad():
            self.tokens.weight.mul_(1000)

    def forward(self, x):
        return {"tokens": self.tokens(x), "logits": self.cls(x)}


def test_a_loss_of_the_metric_is_blamed_on_what_the_metric_reads(tmp_path):
    torch.manual_seed(0)
    net, x = TwoHeads().eval(), torch.randn(512, 12)
    labels = net(x)["logits"].argmax(1)
    with pytest.warns(attar.AttarWarning, match="accuracy goes from 1 ") as said:
        attar.quantize(net, x, bits=2, labels=labels).save(tmp_path / "m.attar")
    text = next(str(each.message) for each in said if "accuracy" in str(each.message))
    assert "the weight cls.weight (100%)" in text
    assert "tokens.weight" not in text
