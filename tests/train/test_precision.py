import pytest
import torch
from torch import nn

from attar._src.model.capture import capture
from attar._src.train.precision import channels_last, measure_precision

pytestmark = pytest.mark.usefixtures("one_thread")


def module():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def test_every_combination_is_measured_and_the_module_is_left_as_it_is():
    own = module()
    x = torch.randn(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    decision = measure_precision(capture(own, (x,)).training, (x,), seconds=0.1)
    assert list(decision.figures) == [
        *["32-true contiguous", "32-true channels_last"],
        *["bf16-mixed contiguous", "bf16-mixed channels_last"],
    ]
    assert all(figure > 0 for figure in decision.figures.values())
    assert f"{decision.precision} {decision.layout}" in decision.figures
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    assert all(parameter.grad is None for parameter in own.parameters())


def test_what_cannot_run_is_not_chosen():
    class Bound(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return y.float().view(len(x), -1) if y.dtype == torch.float32 else y.view(torch.int8)[..., :0].reshape(0, 9)

    decision = measure_precision(Bound(), (torch.randn(2, 3, 8, 8),), seconds=0.05)
    assert (decision.precision, decision.layout) == ("32-true", "contiguous")
    assert decision.figures["32-true channels_last"] is None


def test_a_module_without_images_has_one_layout():
    decision = measure_precision(nn.Linear(3, 2), (torch.randn(4, 3),), seconds=0.05)
    assert [name.split()[1] for name in decision.figures] == ["contiguous"] * 2
    assert (
        measure_precision(nn.Linear(3, 2), (torch.randn(4, 3),), precisions=("bf16-mixed",)).precision == "bf16-mixed"
    )


def test_channels_last_keeps_parameters_and_values():
    own = module()
    before = dict(own.named_parameters())
    values = {name: p.detach().clone() for name, p in before.items()}
    channels_last(own)
    assert all(own.get_parameter(name) is p and torch.equal(p, values[name]) for name, p in before.items())
    assert own[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert own[0](torch.randn(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
