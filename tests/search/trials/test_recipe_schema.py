"""The JSON schema of recipes with a search: what it accepts and refuses, beside what runs."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.json_schema import faults

from attar._src.recipe.recipe import Recipe
from attar._src.recipe.yaml_text import parse_yaml
from attar._src.search.trials.recipe_schema import recipe_schema
from attar._src.search.trials.spec import read_holed_recipe

ROOT = Path(__file__).parents[3]
RECIPES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("studies/*/*.yaml")])
TEXT = """
data:
  source: cifar10
  calibration: {choose: [128, 512]}
  augment: [{name: crop, padding: {between: [2, 4]}}, flip]
models:
  net:
    source: {factory: resnet.py:resnet20, weights: resnet20.safetensors}
    stages:
      - {stage: prune_weights, sparsity: {between: [0.0, 0.6]}}
      - stage: quantize
        bits: 8
        scales: {choose: [mse, gptq]}
        overrides: {"*": {choose: [2, 3, {choose: [4, 8]}], each: layer}}
  small:
    source: {choose: [net.py:build, {factory: net.py:build, arguments: {width: {between: [8, 64], log: true}}}]}
    stages: {choose: [[], [{stage: {choose: [distill, train]}, epochs: {choose: [1, 2]}, optimizer: sgd}]]}
search: {max_drop: 0.5, minimise: bytes, sampler: {name: tpe, startup: 20}, trials: 60, halving: {rungs: 3}}
"""


@pytest.fixture(scope="module")
def schema():
    return recipe_schema()


@pytest.fixture(scope="module")
def plain():
    return Recipe.schema()


def tree(text=TEXT):
    return YAML(typ="safe", pure=True).load(text)


def with_value(path, value):
    found = tree()
    *keys, last = path.split(".")
    node = found
    for key in keys:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recipes_are_valid_with_and_without_holes_in_the_schema(schema, plain, path):
    """Guards against a schema that refuses words for mappings, and {name: sgd} for being two things."""
    assert faults(plain, parse_yaml(path)) == []
    assert faults(schema, parse_yaml(path)) == []


def test_a_search_and_its_holes_are_valid(schema, plain):
    assert faults(schema, tree()) == []
    assert faults(plain, tree())


NET = "models.net.stages.0"
QUANTIZE = "models.net.stages.1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("search.max_dorp", 1),
        ("search.trials", 0),
        ("search.minimise", "size"),
        ("search.sampler", {"name": "tpe", "starup": 3}),
        (f"{NET}.sparsity", {"between": [0.3, 1.5]}),
        (f"{NET}.sparsity", {"between": [0.3]}),
        (f"{NET}.sparsity", {"choose": [0.5]}),
        (f"{NET}.sparsity", {"choose": [0.5, 0.5]}),
        (f"{NET}.sparsity", {"choose": [0.5, 0.6], "each": "layer"}),
        (f"{NET}.sparsity", {"choose": [0.5, 0.6], "log": True}),
        (f"{QUANTIZE}.bits", {"choose": [2, 9]}),
        (f"{QUANTIZE}.bits", {"choose": [2, "four"]}),
        (f"{QUANTIZE}.scales", {"between": [1, 2]}),
        (f"{QUANTIZE}.overrides", {"*": {"choose": [2, 4], "each": "channel"}}),
        (f"{QUANTIZE}.bit", {"choose": [2, 4]}),
        ("data.source", {"choose": ["digits", "mnist"]}),
        ("data.seed", {"choose": [0, 1]}),
        ("data", {"choose": ["digits", "mnist"]}),
        ("metric", {"choose": ["accuracy", "f1"]}),
        ("models.small.stages", {"choose": [[], [{"stage": "quantize", "bits": 99}]]}),
        ("models.net", {"choose": [{"source": "net.py:a"}, {"source": "net.py:b"}], "each": "layer"}),
    ],
)
def test_wrong_searches_and_holes_are_refused(schema, path, value):
    assert faults(schema, with_value(path, value))


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        ({"stage": "quantise"}, "stage"),
        ({"bits": 3}, ""),
        ({"stage": "quantize", "bitss": 4}, "bitss"),
        ({"stage": "quantize", "epochs": 2, "bitss": 4}, "bitss"),
        ({"stage": "quantize", "scales": "gtpq"}, "scales"),
        ({"stage": "quantize", "scales": {"choose": ["gptq", "gtpq"]}}, "scales.choose.1"),
        ({"stage": "quantize", "bits": {"choose": [3, 99]}}, "bits.choose.1"),
        ({"stage": "quantize", "bits": {"choose": [3, 4], "eech": "layer"}}, "bits.eech"),
        ({"stage": "quantize", "rate": {"between": [0, "a"]}}, "rate.between.1"),
        ({"stage": "train", "epochs": "x"}, "epochs"),
        ({"stage": "train", "epochs": 2, "optimizer": "sdg"}, "optimizer"),
        ({"stage": "train", "epochs": 2, "optimizer": {"name": "sgd", "momentm": 1}}, "optimizer.momentm"),
        ({"stage": "train", "epochs": 2, "constraints": ["foo"]}, "constraints.0"),
        ({"stage": "train", "epochs": 2, "constraints": [{"name": "foo"}]}, "constraints.0.name"),
        ({"stage": "train", "epochs": 2, "constraints": [{"name": "prune", "sparsty": 0.5}]}, "constraints.0.sparsty"),
        ({"stage": "train", "epochs": 2, "constraints": [{"name": "own.py:Rule", "x": 1}]}, "constraints.0.x"),
    ],
)
def test_the_faulty_key_is_named(schema, stage, key):
    """Guards against a schema that tries all stages, so that a validator says of each why it is not that one."""
    found = faults(schema, with_value("models.net.stages", [stage]))
    place = ".".join(filter(None, ("$.models.net.stages.0", key)))
    assert {fault.partition(":")[0] for fault in found} == {place}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", [{"choose": [0, 1]}]),
        ("threads", {"choose": [1, 2]}),
        ("models", {"choose": [{"net": {"source": "a.py:b"}}, {"net": {"source": "a.py:c"}}]}),
        (
            f"{NET}",
            {"choose": [{"stage": "prune_channels", "macs": {"between": [0.2, 0.5]}}, {"stage": "o.py:A"}]},
        ),
        ("search.sampler", "own.py:Sampler"),
    ],
)
def test_holes_may_stand_in_place_of_any_value(schema, path, value):
    assert faults(schema, with_value(path, value)) == []


def test_what_the_schema_accepts_is_read():
    """Guards against a schema of another language than that of searches."""
    holed = read_holed_recipe(tree())
    assert "models.small.stages.choose.1.0.stage" in holed.space
    assert "models.net.stages.1.overrides.*" in holed.space
