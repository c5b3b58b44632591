"""Losses, metrics and reports of maps (N, C, H, W), whose classes are not on the last axis."""

import pytest
import torch
from tests.cases.training import loaders, trained
from torch import nn

from attar import AttarError

EPOCHS = {"epochs": 12, "optimizer": {"name": "adam", "lr": 0.03}}


class Maps(nn.Module):
    """Scores three classes at each position: on axis 1, or last."""

    def __init__(self, channels, last=False, flat=False):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, channels, 1), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        self.last, self.flat = last, flat

    def forward(self, x):
        scores = self.net(x)
        scores = scores.flatten(2) if self.flat else scores
        return scores.movedim(1, -1) if self.last else scores


def data(flat=False, size=(8, 10)):
    torch.manual_seed(0)
    x = torch.randn(200, 3, *size)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return loaders(x, y.flatten(1) if flat else y)


def models(**layout):
    torch.manual_seed(0)
    student = {"stage": "distill", "teacher": "t", "temperature": 2, "beta": 0, **EPOCHS}
    return {
        "t": {"source": Maps(16, **layout), "stages": [{"stage": "train", **EPOCHS}]},
        "s": {"source": Maps(12, **layout), "stages": [student]},
    }


@pytest.mark.parametrize("layout", [{}, {"last": True}, {"flat": True}])
def test_classes_are_on_the_axis_that_labels_lack(tmp_path, layout):
    report, found = trained(tmp_path / "run", data=data("flat" in layout), models=models(**layout))
    assert found["t"] > 0.85
    assert found["s"] > found["t"] - 0.12
    assert set(report["models"][1]["per_class"]) == {"0", "1", "2"}


def test_an_axis_that_could_be_another_is_set_in_the_recipe(tmp_path):
    given = {"data": data(size=(3, 3)), "models": models()}
    with pytest.raises(AttarError, match=r"outputs \(8, 3, 3, 3\) .*class_axis to 1 or 2 or 3"):
        trained(tmp_path / "refused", **given)
    report, found = trained(tmp_path / "run", **given, class_axis=1)
    assert found["s"] > found["t"] - 0.12
    assert set(report["models"][0]["per_class"]) == {"0", "1", "2"}
