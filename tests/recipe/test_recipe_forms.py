"""What a recipe may be given as: an object, a path, a mapping; and what is said of what is none."""

from pathlib import Path

import pytest
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.pipeline.run import run
from attar._src.recipe.recipe import Recipe, as_recipe, first_hole
from attar._src.search.trials.spec import read_holed_recipe

TREE = {"data": "digits", "models": {"net": {"source": "nets.py:net"}}}
HOLED = {**TREE, "models": {"net": {"source": "nets.py:net", "stages": [{"stage": "quantize", "bits": 4}]}}}
HOLED["models"]["net"]["stages"][0]["bits"] = {"choose": [2, 4]}
SEARCHED = {**HOLED, "search": {"max_drop": 0.5}}


def test_a_mapping_is_a_recipe_as_a_path_and_an_object_are(tmp_path):
    (tmp_path / "small.yaml").write_text("data: digits\nmodels: {net: {source: nets.py:net}}\n")
    objects = Recipe(**TREE)
    assert as_recipe(objects) is objects
    assert as_recipe(TREE).described() == objects.described()
    assert as_recipe(str(tmp_path / "small.yaml")).described() == as_recipe(tmp_path / "small.yaml").described()
    assert as_recipe(tmp_path / "small.yaml").described() == objects.described()


def test_a_mapping_may_have_objects(tmp_path, rng):
    x, y = rng.normal(size=(40, 4)).astype("float32"), rng.integers(0, 2, 40)
    done = run({"data": {"train": (x, y), "test": (x, y)}, "models": {"net": {"source": nn.Linear(4, 2)}}}, tmp_path)
    assert done.files["net"].is_file()


@pytest.mark.parametrize("made", [lambda tree: run(tree, "nowhere"), as_recipe, lambda tree: Recipe(**tree)])
def test_holes_and_searches_are_said_to_be_for_searches(made):
    """Guards against a TypeError, and against the error of a field that should be a number."""
    with pytest.raises(SpecError, match=r"recipe\.search: .* run it by `attar run` on its file or by attar\.run_s"):
        made(SEARCHED)
    with pytest.raises(SpecError, match=r"recipe\.models\.net\.stages\.0\.bits is a hole, and nothing says how to"):
        made(HOLED)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("given", [3, None, nn.Linear(1, 1), [TREE], {1: 2}])
def test_what_is_no_recipe_is_refused_with_the_forms_of_one(given):
    with pytest.raises(SpecError, match=f"{type(given).__name__} is no recipe; give the path of one in YAML, a map"):
        as_recipe(given)


def test_a_search_of_an_object_is_refused():
    with pytest.raises(SpecError, match="Recipe is no recipe with holes; give the path of one in YAML, or a mapping"):
        read_holed_recipe(Recipe(**TREE))


def test_the_first_hole_is_found_in_lists_and_mappings():
    assert first_hole({"seeds": [0, {"choose": [1, 2]}]}) == "seeds.1"
    assert first_hole({"choose": [1, 2]}) == ""
    assert first_hole({"stage": {"choose": "taylor"}}) is None
