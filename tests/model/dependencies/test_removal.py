"""Channels removed from networks of many kinds, against the same networks with these channels set to zero.

Guards against labels that are united too little (a removed channel changes others), too much (nothing is left to
remove), or along the wrong axis, and against attributes that do not follow.
"""

import copy
import random

import pytest
import torch
from tests.model.dependencies.networks import CASES, made
from torch import nn

from attar._src.model.capture import capture
from attar._src.model.dependencies.check import find_removable, masked_outputs
from attar._src.model.programs import state_of


def some_units(found, share, seed=0):
    """A share of each group at random, so that every axis keeps a channel."""
    draw, removed = random.Random(seed), []
    for group in found.groups:
        removed += draw.sample(group.units, round(share * len(group.units)))
    return found.with_one_left(removed)


def pruned(module, x, share=0.3):
    """A module with fewer channels, and its largest difference from the masked one."""
    captured = capture(module, (x,), train=False)
    removable = find_removable(module, captured)
    units = some_units(removable.found, share)
    smaller = copy.deepcopy(module)
    removable.remove(smaller, units)
    (wanted,) = masked_outputs(captured, removable.found, units).values()
    with torch.no_grad():
        given = smaller(x)
    assert given.shape == wanted.shape
    return smaller, removable, units, float((given - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_a_pruned_module_computes_what_the_masked_one_does(name):
    case, (module, x) = CASES[name], made(name)
    smaller, removable, units, difference = pruned(module, x)
    found = removable.found
    assert {group.name: len(group.units) for group in found.groups} == case.units
    for weight, why in case.stays.items():
        assert why in found.excluded[weight]
    # Every matrix is in a group, or has a reason to stay.
    grouped = {unit for group in found.groups for unit in group.units}
    parts = {key for key, vectors in found.state.items() for each in vectors if not grouped.isdisjoint(each.tolist())}
    listed = [value for key, value in state_of(module).items() if key in parts or key in found.excluded]
    for parameter, value in module.named_parameters():
        assert value.dim() < 2 or any(value is each for each in listed), parameter
    assert difference < 1e-5
    before, after = (sum(each.numel() for each in net.parameters()) for net in (module, smaller))
    if units:
        assert after < before
        assert found.macs(units) < found.macs()
    # What the layers say of themselves is true.
    for layer in smaller.modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features)
        elif isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean.shape == (layer.num_features,)
        elif isinstance(layer, nn.LSTM | nn.GRU | nn.RNN):
            assert layer.weight_hh_l0.shape[1] == layer.hidden_size
    # It trains on.
    smaller.train()(x).square().mean().backward()
    assert all(each.grad is None or each.grad.shape == each.shape for each in smaller.parameters())


@pytest.mark.parametrize("name", ["padded shortcut, a module", "padded shortcut, an attribute", "heads, unbound"])
def test_more_is_removed_from_what_is_left(name):
    module, x = made(name)
    for _ in range(3):
        module, _, units, difference = pruned(module, x, 0.25)
        assert units
        assert difference < 1e-5


def test_the_state_dict_of_a_shortcut_with_a_hook_has_no_new_names():
    module, x = made("padded shortcut, a module")
    smaller, *_ = pruned(module, x, 0.5)
    assert smaller.state_dict().keys() == module.state_dict().keys()
    assert len(smaller.pads.kept_channels) < 16
    assert torch.equal(copy.deepcopy(smaller)(x), smaller(x))
