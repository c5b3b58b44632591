"""A few outliers do not take the codes of all other values; where they must, a warning says so.

Reported as onnxruntime #14233, onnxruntime-inference-examples #528 and Model-Optimizer #126: an accuracy of zero
without a word.
"""

import warnings

import pytest
import torch
from tests.cases.models import decibels, quantized
from torch import nn

from attar._src.methods.quantize.unquantized import KEPT_VALUE

#: Of the random weights below; 46 dB were it not for pairs of weights that fit 16 bits.
CLEAN = 41


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2048, 4)),
    ).eval()


def images(count=512):
    torch.manual_seed(0)
    return torch.rand(count, 3, 16, 16)


@pytest.mark.parametrize(
    ("observer", "size"),
    [("percentile", 1e2), ("percentile", 1e3), ("percentile", 1e4), ("percentile", -1e4), ("mse", 1e2), ("mse", 1e30)],
)
def test_one_broken_pixel(tmp_path, observer, size):
    clean = images()
    broken, net = clean.clone(), network()
    broken[7, 0, 3, 3] = size
    with pytest.warns(UserWarning, match=r"'input_1', read by '0', has 1 of 393,216 elements outside") as said:
        file = quantized(net, broken, tmp_path, observer=observer)
    # The broken example itself is not what it was, which the comparison with the floating module tells.
    assert [str(each.message) for each in said if "the floating module" not in str(each.message)] == [
        f"m.attar: {file.report['warnings'][0]}"
    ]
    assert decibels(net(clean), file.session.run(clean.numpy())) > CLEAN
    assert file.reasons == {}


def test_a_clean_set_has_no_warning(tmp_path):
    net, clean = network(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = quantized(net, clean, tmp_path)
    assert file.report["warnings"] == []
    assert decibels(net(clean), file.session.run(clean.numpy())) > CLEAN


def test_an_outlier_inside_the_network(tmp_path):
    class Divided(nn.Module):
        """A division by almost zero makes one value 100,000 times as large."""

        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.head(torch.relu(self.first(x / x[:, :1])))

    torch.manual_seed(0)
    net, x = Divided().eval(), torch.rand(8192, 16) + 0.5
    clean = x.clone()
    x[5, 0] = 1e-5
    with pytest.warns(UserWarning, match=r"'div', read by 'first', has 15 of 131,072 elements outside|heavy tails"):
        file = quantized(net, x, tmp_path, examples=8192)
    assert file.report["warnings"]
    assert decibels(net(clean[6:]), file.session.run(clean[6:].numpy())) > -5


def test_a_spectrum_has_heavy_tails(tmp_path):
    torch.manual_seed(0)
    power = torch.randn(256, 40, 32).mul(3).exp()
    net = nn.Sequential(nn.Conv1d(40, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(240, 4)).eval()
    with pytest.warns(UserWarning, match=r"'input_1', read by '0', has heavy tails: 99% of its elements.*\['0'\]"):
        quantized(net, power, tmp_path)
    # What the warning proposes: the spectrum stays in floating point, all else runs in integers.
    file = quantized(net, power, tmp_path, keep_activations=["0"])
    assert file.report["left_in_floating_point"] == {"input_1": KEPT_VALUE}
    assert set(file.reasons) == {"0"}
    # The logarithm needs neither.
    assert quantized(net, power.log(), tmp_path).reasons == {}


class Detector(nn.Module):
    """Boxes in pixels and scores up to 1, joined before a convolution."""

    def __init__(self, size):
        super().__init__()
        self.body, self.head, self.size = nn.Conv2d(3, 9, 3, padding=1), nn.Conv2d(9, 9, 1), size
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(9).view(9, 9, 1, 1))
            self.head.bias.zero_()

    def forward(self, x):
        y = self.body(x)
        return self.head(torch.cat([y[:, :4].sigmoid() * self.size, y[:, 4:].sigmoid()], 1))


def test_scores_beside_boxes_are_named(tmp_path):
    net, x = Detector(640).eval(), images(64)
    with pytest.warns(
        UserWarning, match=r"'mul\w*' and 'sigmoid_1', read by 'head',.*'sigmoid_1' reach.* 1 of 256"
    ) as said:
        quantized(net, x, tmp_path)
    assert len(said) == 1
    file = quantized(net, x, tmp_path, keep_activations=["head"])
    assert set(file.reasons) == {"head"}
    assert decibels(net(x)[:, 4:], file.session.run(x.numpy())[:, 4:]) > 40
    assert set(file.report["left_in_floating_point"].values()) == {KEPT_VALUE}


def test_columns_of_a_table_in_their_own_units_are_named(tmp_path):
    torch.manual_seed(0)
    table = torch.rand(256, 6) * torch.tensor([1.0, 3.0, 90_000.0, 1.0, 0.0, 200_000.0])
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    with pytest.warns(
        UserWarning, match=r"'input_1', read by '0', has channels.*3 of 6 \(0, 1, 3\) reach to 3 and get 1 of"
    ):
        quantized(net, table, tmp_path)
    # What the warning proposes.
    normalised = nn.Sequential(nn.BatchNorm1d(6), *net)
    normalised[0].running_mean, normalised[0].running_var = table.mean(0), table.var(0)
    file = quantized(normalised.eval(), table, tmp_path)
    assert file.report["warnings"] == []
    assert decibels(normalised(table), file.session.run(table.numpy())) > 30


@pytest.mark.parametrize("size", [1.0, 8.0])
def test_parts_of_like_size_have_no_warning(tmp_path, size):
    net, x = Detector(size).eval(), images(64)
    assert quantized(net, x, tmp_path).report["warnings"] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: (torch.rand(256, 64, 16) > 0.95).float(),
        lambda: torch.randn(256, 64, 16).mul(20).softmax(1),
        lambda: nn.functional.gelu(torch.randn(256, 64, 16) * 3),
        lambda: torch.distributions.Laplace(0.0, 1.0).sample((256, 64, 16)),
        lambda: torch.zeros(256, 64, 16),
        lambda: torch.full((256, 64, 16), 3.0),
    ],
    ids=["sparse", "attention", "gelu", "laplace", "zeros", "constant"],
)
def test_usual_values_have_no_warning(tmp_path, make):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv1d(64, 8, 1), nn.Flatten(), nn.Linear(128, 4)).eval(), make()
    file = quantized(net, x, tmp_path)
    assert file.report["warnings"] == []
    assert file.reasons == {}
