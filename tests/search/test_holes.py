"""Holes in the tree of a recipe: found, filled, given to each layer."""

import pytest

from attar._src.core.errors import SpecError
from attar._src.search.holes import (
    counted_values,
    fill_holes,
    find_holes,
    has_layer_holes,
    is_search,
    values_in_words,
    with_layer_holes,
)

TREE = {
    "seeds": [{"choose": [0, 1]}],
    "models": {
        "net": {
            "source": {"arguments": {"width": {"between": [8, 32]}}},
            "stages": [{"stage": "prune", "sparsity": {"between": [0.3, 0.9]}}, {"stage": "quantize", "bits": 4}],
        }
    },
}


def test_holes_are_found_anywhere_in_order():
    assert [*find_holes(TREE)] == ["seeds.0", "models.net.source.arguments.width", "models.net.stages.0.sparsity"]


def test_a_filled_recipe_has_the_values_and_no_holes():
    point = {"seeds.0": 1, "models.net.source.arguments.width": 16, "models.net.stages.0.sparsity": 0.5}
    filled = fill_holes(TREE, point)
    assert filled["seeds"] == [1]
    assert filled["models"]["net"]["source"]["arguments"] == {"width": 16}
    assert filled["models"]["net"]["stages"][0]["sparsity"] == 0.5
    assert not find_holes(filled)
    with pytest.raises(SpecError, match=r"sparsity: 2 is no number"):
        fill_holes(TREE, point | {"models.net.stages.0.sparsity": 2})


def test_holes_inside_a_choice_count_when_it_is_chosen():
    tree = {"stages": {"choose": [[], [{"stage": "quantize", "bits": {"choose": [2, 8]}}]]}}
    assert [*find_holes(tree)] == ["stages", "stages.choose.1.0.bits"]
    one, two = tree["stages"]["choose"]
    assert fill_holes(tree, {"stages": one, "stages.choose.1.0.bits": 8}) == {"stages": []}
    assert fill_holes(tree, {"stages": two, "stages.choose.1.0.bits": 8})["stages"] == [
        {"stage": "quantize", "bits": 8}
    ]


def test_values_inside_a_choice_that_is_not_taken_do_not_count():
    """Guards against recipes that are tried twice, and values that are told of a file and are not in its recipe."""
    tree = {"seeds": {"choose": [[0], [1]]}, "stages": {"choose": [[], [{"bits": {"choose": [2, 8]}}]]}}
    one, two = tree["stages"]["choose"]
    point = {"seeds": [1], "stages": one, "stages.choose.1.0.bits": 8}
    assert counted_values(tree, point) == {"seeds": [1], "stages": []}
    assert counted_values(tree, point | {"stages": two}) == point | {"stages": two}
    space = find_holes(tree)
    keys = {space.key(counted_values(tree, point | {"stages.choose.1.0.bits": bits})) for bits in (2, 8)}
    assert len(keys) == 1


def test_values_are_told_by_the_ends_of_their_paths():
    """Guards against lines of a search that do not say what was tried, or which of two holes had a value."""
    stages = "models.net.stages"
    assert values_in_words({f"{stages}.0.bits": 3, f"{stages}.1.sparsity": 0.5}) == "bits=3, sparsity=0.5"
    assert values_in_words({f"{stages}.0.bits": 3, f"{stages}.1.bits": 4}) == "stages.0.bits=3, stages.1.bits=4"
    assert values_in_words({f"{stages}.0.overrides.{n}": n for n in range(10)}).endswith("overrides.7=7, and 2 more")
    assert values_in_words({"a.bits": 1, "bits": 2}) == "a.bits=1, bits=2"
    assert values_in_words({stages: [{"bits": 4}], "scales": "gptq"}) == 'stages=[{"bits": 4}], scales=gptq'
    assert len(values_in_words({stages: [{"stage": "x" * 99}]})) < 60


def test_two_places_with_one_path_are_refused():
    with pytest.raises(SpecError, match=r"recipe\.a\.b: two places"):
        find_holes({"a": {"b": {"choose": [1, 2]}}, "a.b": {"choose": [3, 4]}})


def layered(overrides):
    return {"models": {"net": {"stages": [{"stage": "quantize", "overrides": overrides}]}}}


def spread(overrides, names=("conv1", "layer1.0.conv", "fc")):
    tree = layered(overrides)
    assert has_layer_holes(tree)
    made = with_layer_holes(tree, lambda *_: {each: [each] for each in names})
    return made["models"]["net"]["stages"][0]["overrides"]


def test_every_layer_that_a_glob_matches_has_a_hole():
    hole = {"choose": [2, 4], "each": "layer"}
    assert spread({"*": hole}) == {key: {"choose": [2, 4]} for key in ("conv1", "layer1.0.conv", "fc")}
    # Last match wins, as in the stage: what a later glob matches is not searched.
    assert spread({"*": hole, "fc": 8, "conv*": {"between": [3, 8], "each": "layer"}}) == {
        "layer1.0.conv": {"choose": [2, 4]},
        "fc": 8,
        "conv1": {"between": [3, 8]},
    }


def test_no_hole_is_without_effect():
    """Guards against trials of values that another glob replaces: one between, or one by another name of the layer."""
    hole = {"choose": [2, 4], "each": "layer"}
    assert [*spread({"conv1": 8, "c*": 3, "*": hole}).items()] == [
        *(("c*", 3), ("conv1", {"choose": [2, 4]}), ("layer1.0.conv", {"choose": [2, 4]}), ("fc", {"choose": [2, 4]}))
    ]
    names = {"stem": ["stem", "stem.weight", "outer"], "inner": ["inner"]}
    made = with_layer_holes(layered({"*": hole, "outer": 3}), lambda *_: names)
    assert made["models"]["net"]["stages"][0]["overrides"] == {"inner": {"choose": [2, 4]}, "outer": 3}
    made = with_layer_holes(layered({"outer": hole}), lambda *_: names)
    assert made["models"]["net"]["stages"][0]["overrides"] == {"stem": {"choose": [2, 4]}}


def test_a_hole_for_each_layer_stands_behind_a_glob_of_layers():
    hole = {"choose": [2, 4], "each": "layer"}
    with pytest.raises(SpecError, match="no layer of net named 'convv'"):
        spread({"convv": hole})
    with pytest.raises(SpecError, match="for stages of a model"):
        with_layer_holes({"data": {"x": hole}}, lambda *_: {"fc": ["fc"]})
    with pytest.raises(SpecError, match="stands behind a glob"):
        with_layer_holes({"seeds": [hole]}, lambda *_: {"fc": ["fc"]})


def test_a_recipe_with_holes_needs_a_search():
    assert not is_search({"seeds": [0]})
    assert is_search({"seeds": [0], "search": {}})
    with pytest.raises(SpecError, match=r"recipe\.seeds\.0 is a hole, and nothing says how to fill it"):
        is_search(TREE)
