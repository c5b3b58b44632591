"""Ways to train: their stages are those of a recipe, and aim at the bytes they were asked for."""

import dataclasses
import math

import pytest
import torch

from attar._src.methods.prune.scopes import SCOPES, WeightUnits
from attar._src.recipe.recipe import Recipe
from attar._src.search.training.registry import TRAINED_WAYS
from attar._src.search.training.sparse import sparsity_for
from attar._src.search.training.way import STUDENT, TEACHER, TrainingTarget

#: LeNet-5: most of its weights in one matrix.
TARGET = TrainingTarget(
    max_bytes=9000,
    macs=None,
    weights=430_500,
    vectors=580,
    channels=580,
    layers=0,
    epochs=20,
    batch=128,
    optimizer={"name": "sgd", "lr": 0.03},
)


def with_(**more):
    return dataclasses.replace(TARGET, **more)


@pytest.mark.parametrize("way", TRAINED_WAYS.values(), ids=lambda way: way.name)
@pytest.mark.parametrize(
    "target",
    [
        with_(max_bytes=size, macs=None, layers=9, labels=labels, keep=keep)
        for size in (1_000, 9_000, 60_000, 200_000)
        for labels, keep in ((True, ()), (False, ("0",)))
    ]
    + [with_(max_bytes=None, macs=0.3, layers=9, activations=8)],
    ids=lambda target: f"{target.max_bytes}-{target.macs}-{target.labels}",
)
def test_the_stages_are_those_of_a_recipe_within_the_bytes(way, target):
    """Guards against a way that fails where a search calls it: after hours, on the user's network."""
    stages = way.stages(target)
    if stages is None:
        return
    models = {TEACHER: {"source": "net.py:teacher"}, STUDENT: {"source": "net.py:net", "stages": stages}}
    last = Recipe(data="mnist", models=models).models[STUDENT].stages[-1]
    assert last.stage == "compress"
    assert last.max_bytes == target.max_bytes
    assert last.activations == target.activations
    assert last.keep == target.keep
    assert (last.beta == 0) == (not target.labels)


def test_some_way_applies_at_every_size():
    for size in (4_000, 9_000, 60_000, 200_000):
        assert any(way.stages(with_(max_bytes=size)) for way in TRAINED_WAYS.values()), size


def test_where_codes_are_fine_enough_all_weights_stay():
    """ResNet-20 in 26 KB lost 11 points with fewer channels, which were tried first."""
    for size, first in ((4_000, False), (200_000, True)):
        suited = [way.name for way in TRAINED_WAYS.values() if way.suits(with_(max_bytes=size))]
        assert suited == (["distilled"] if first else []), size


def test_a_network_without_residual_layers_is_not_made_shallower():
    assert TRAINED_WAYS["shallower"].stages(TARGET) is None
    assert TRAINED_WAYS["shallower"].stages(with_(layers=9)) is not None


def test_zeros_leave_the_bits_that_were_asked_for():
    """LeNet-5 with 99 % zeros takes 8.7 KB (studies/lenet)."""
    assert TRAINED_WAYS["sparse"].stages(TARGET)[0]["constraints"][0]["sparsity"] == pytest.approx(0.986, abs=0.01)
    for bits in (0.05, 0.3, 1.0):
        share = sparsity_for(bits)
        coded = -share * math.log2(share) - (1 - share) * math.log2(1 - share) + 2.5 * (1 - share)
        assert coded == pytest.approx(bits, rel=1e-3)
    assert sparsity_for(4.0) == 0
    assert TRAINED_WAYS["sparse"].stages(with_(max_bytes=2_500)) is None, "layers would be left without a weight"


def test_what_is_not_codes_takes_fewer_bits_in_a_small_file():
    small, large = TARGET.compress(), with_(max_bytes=200_000).compress()
    assert (small["floats"], small["granularity"]) == (8, "tensor")
    assert large["floats"] == 16
    assert "granularity" not in large


def test_a_narrow_module_has_bits_left_for_each_weight():
    removed = TRAINED_WAYS["narrower"].stages(with_(max_bytes=60_000))[0]["channels"]
    weights = TARGET.weights * (1 - removed) ** 2
    assert 8 * 60_000 / weights == pytest.approx(2.2, abs=0.1)


def test_zeros_leave_every_layer_some_weights():
    """Guards against a training that ends where all weights of one layer are smaller than those of the others."""
    (stage,) = TRAINED_WAYS["sparse"].stages(with_(max_bytes=9_000))
    (rule,) = stage["constraints"]
    assert rule["sparsity"] > 0.9
    values = {"large": torch.rand(1000) + 1, "small": 1e-3 * torch.rand(50)}
    units = {name: WeightUnits(each, each.square(), tuple(each.shape)) for name, each in values.items()}
    counts = SCOPES[rule["scope"]].counts(units, rule["sparsity"])
    assert all(counts[name] < each.numel() for name, each in values.items())
    assert SCOPES["global"].counts(units, rule["sparsity"])["small"] == 50, "the case that this is of"
