import torch
from torch import nn

from attar._src.work.parametrization import GridPositions, Parametrization
from attar._src.work.weight_view import WeightView


class Half(Parametrization):
    def forward(self, x):
        return x / 2


class Tenths(Parametrization):
    def forward(self, x):
        return (x * 10).round() / 10

    def grid_positions(self, value):
        return GridPositions(value * 10, torch.tensor(0.1), -8, 7)


HALF, AGAIN, GRID, AFTER = Half(), Half(), Tenths(), Half()


def view():
    tensors = {name: nn.Parameter(torch.tensor([1.0, 0.26])) for name in ("on", "off", "bare")}
    return WeightView(tensors, {"on": ((0, HALF), (0, AGAIN), (1, GRID)), "off": ((0, HALF), (2, AFTER)), "bare": ()})


def test_a_value_has_no_gradient_and_shares_memory_with_the_parameter():
    weights = view()
    value = weights.value("on")
    assert not value.requires_grad
    value[0] = 3.0
    assert weights.tensors["on"][0] == 3


def test_parametrizations_come_in_the_order_in_which_they_act():
    assert view().parametrizations("on") == [HALF, AGAIN, GRID]
    assert view().parametrizations("bare") == view().parametrizations("no weight") == []


def test_the_effective_weight_is_what_a_parametrization_or_the_grid_reads():
    weights = view()
    assert weights.effective("on").tolist() == [0.25, weights.tensors["on"][1].item() / 4]
    assert weights.effective("on", AGAIN)[0] == 0.5
    assert weights.effective("on", HALF)[0] == weights.effective("bare")[0] == 1
    # What acts on rounded values does not count.
    assert weights.effective("off")[0] == 0.5
    assert not weights.effective("on").requires_grad


def test_the_last_parametrization_reads_what_the_others_made_with_gradient():
    weights = view()
    last, value = weights.last("on")
    assert last is GRID
    value.sum().backward()
    assert weights.tensors["on"].grad.tolist() == [0.25, 0.25]
    assert weights.last("bare") is None


def test_positions_are_those_of_weights_on_a_grid():
    (found,) = view().grid_positions().items()
    assert found[0] == "on"
    torch.testing.assert_close(found[1].at.detach(), torch.tensor([2.5, 0.65]))
    assert found[1].at.requires_grad
