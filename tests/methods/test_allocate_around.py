"""Sensitivities around an allocation: with all other tensors at their levels, not as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.methods.allocate.allocate import Allocator
from attar._src.methods.allocate.choose import nearby_levels
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.own_bits import allocator_of
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context


class Product(nn.Module):
    """Six layers whose outputs are multiplied: what one errs by depends on what all others do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(6))

    def forward(self, x):
        product = self.layers[0](x)
        for layer in self.layers[1:]:
            product = product * layer(x)
        return product


class OneOwner(nn.Module):
    """Two weights of one module, the first on a grid of three bits already."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.randn(24, 24) / 5) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(24))
        with torch.no_grad():
            self.one.copy_((self.one * 5).round().clamp(-3, 3) / 5)
            self.one[:, 0] = 0.6

    def forward(self, x):
        return nn.functional.linear(torch.tanh(nn.functional.linear(x, self.one, self.bias)), self.two)


def allocator_for(make_net):
    torch.manual_seed(0)
    x = torch.randn(256, 24)
    model = CompressedModel.of(trace(make_net().eval(), (x[:2],)))
    inputs = {"main": CalibrationInputs(tuple((part,) for part in x.split(64)))}
    target = BitTarget(max_bytes=10_000)
    stage = PostTrainingQuantize(bits=target, scales="gptq")
    names = stage.chosen(model)
    record = {**stage.describe(), "calibration_examples": 256}

    def make(given, levels):
        solved = stage.choice(model, FileInfo(), names, given, levels)
        return lambda chosen: replace(solved(chosen), record=(record,))

    rates, about = SOLVERS["gptq"].rates, stage.describe()
    made = allocator_of(target, model, inputs, Context(inputs), names, rates, about, make)
    made.smallest()  # its file tells what all files take beside the tensors
    return made


@pytest.fixture(scope="module")
def allocator():
    return allocator_for(Product)


def at(allocator, **value):
    return dict.fromkeys(allocator.names, Level(**value))


def test_each_error_is_that_of_the_file_with_one_tensor_at_another_level(allocator):
    chosen = at(allocator, value=2) | {"layers.3.weight": Level(FLOAT)}
    near = {name: [Level(2), Level(4), Level(FLOAT)] for name in allocator.names}
    seen = allocator.meter.around(chosen, near)
    for name in allocator.names:
        for level in near[name]:
            expected = allocator.files.error(allocator.attempt({**chosen, name: level}).artifact)
            assert seen[name][level] == pytest.approx(expected, rel=1e-3)
    assert allocator.meter.together(chosen) == pytest.approx(seen["layers.0.weight"][Level(2)], rel=1e-5)


@pytest.mark.parametrize("net", [OneOwner, lambda: nn.LSTM(24, 8, batch_first=True)], ids=["bare", "lstm"])
@pytest.mark.parametrize("base", [2, FLOAT])
def test_tensors_of_one_module_are_apart(net, base):
    """Guards against levels of one weight that undo those of another, or leave a bias that belongs to another level."""
    of = allocator_for(net)
    chosen = at(of, value=2) | {of.names[-1]: Level(base)}
    seen = of.meter.around(chosen, {name: [Level(2), Level(3), Level(FLOAT)] for name in of.names})
    for name in of.names:
        for level, error in seen[name].items():
            expected = of.files.error(of.attempt({**chosen, name: level}).artifact)
            assert error == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert of.meter.together(chosen) == pytest.approx(of.files.error(of.attempt(chosen).artifact), rel=1e-2)


def test_allocators_of_one_model_share_what_was_measured(allocator, monkeypatch):
    other = replace(allocator)
    other.share(allocator)
    monkeypatch.setattr(type(allocator.meter), "measure", lambda *_: pytest.fail("measured again"))
    assert other.measured is allocator.measured
    assert other.meter is allocator.meter
    assert len(other.within(1900, other.smallest(), again=False).data) <= 1900


def test_afterwards_the_network_is_as_it_was(allocator):
    before = list(allocator.meter.measure())
    allocator.meter.around(at(allocator, value=2), {name: [Level(3)] for name in allocator.names})
    assert list(allocator.meter.measure()) == before


def test_where_errors_do_not_add_up_files_err_less(allocator):
    """Guards against allocations that believe in sums where all tensors together err more or less than that."""
    least, shares = allocator.smallest(), []
    for most in (1700, 1800, 1900, 2200):
        alone, again = (allocator.within(most, least, again=each) for each in (False, True))
        errors = [allocator.files.error(each.artifact) for each in (alone, again)]
        shares.append(errors[1] / errors[0])
        assert len(again.data) <= most
        assert again.predicted == pytest.approx(len(again.data), rel=0.01)
        assert shares[-1] == 1 or not allocator._adds_up(alone)
    assert max(shares) <= 1
    assert np.mean(shares) < 0.9
    assert allocator.within(2200, least).data == again.data


def test_where_errors_add_up_nothing_is_measured_again(allocator, monkeypatch):
    monkeypatch.setattr(Allocator, "_around", lambda *_: pytest.fail("measured again"))
    found = allocator.within(2600, allocator.smallest())
    assert len(found.data) <= 2600


def test_a_drop_is_held_by_a_smaller_file(allocator, monkeypatch):
    least, drops = allocator.smallest(), (40.0,)
    found = [allocator.dropped(most, least) for most in drops]
    monkeypatch.setattr(Allocator, "_adds_up", lambda *_: True)
    alone = [allocator.dropped(most, least) for most in drops]
    for most, own, other in zip(drops, found, alone, strict=True):
        assert allocator.files.drop(own.artifact)[0] <= most
        assert len(own.data) <= len(other.data)
    assert sum(len(each.data) for each in found) < 0.98 * sum(len(each.data) for each in alone)


def test_an_error_that_is_no_number_is_that_of_a_thousand_signals(allocator, monkeypatch):
    chosen = at(allocator, value=2)
    seen = {name: {Level(2): 0.5, Level(3): float("nan")} for name in allocator.names}
    monkeypatch.setattr(type(allocator.meter), "around", lambda *_: seen)
    assert allocator._around(chosen)["layers.0.weight"] == {Level(2): 0.0, Level(3): 999.5}


def test_neighbours_are_those_of_the_front():
    errors, sizes = {2: 0.9, 3: 0.5, 4: 0.6, 6: 0.2, 8: 0.1}, {2: 20, 3: 30, 4: 40, 6: 60, 8: 80}
    assert nearby_levels(errors, sizes, 3, steps=1) == [2, 3, 6]
    assert nearby_levels(errors, sizes, 2, steps=2) == [2, 3, 6]
    assert nearby_levels(errors, sizes, 8, steps=2) == [3, 6, 8]
    assert nearby_levels(errors, sizes, 4, steps=1) == [3, 4, 6]  # chosen, though not on the front
