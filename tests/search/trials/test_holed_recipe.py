"""A recipe with holes, and the part of it that trials run."""

import pytest

from attar._src.core.errors import SpecError, UnknownName
from attar._src.pipeline.fabric import file_facts
from attar._src.search.trials.spec import read_holed_recipe


def net(**arguments):
    return {"source": {"factory": "nets.py:net", "arguments": arguments}}


#: A hole for each layer.
EACH = {"choose": [2, 4], "each": "layer"}
TREE = {
    "data": {"source": "digits"},
    "models": {
        "left": net(width={"choose": [1, 2]}) | {"stages": [{"stage": "quantize", "overrides": {"*": EACH}}]},
        "fixed": net(width=9),
        "judged": net(width={"choose": [3, 4, 5]}),
    },
    "search": {"minimise": "bytes"},
}


def for_trials(**search):
    holed = read_holed_recipe({**TREE, "search": {**TREE["search"], **search}})
    return holed.for_trials(holed.check())


def test_holes_of_models_that_are_left_out_are_left_out():
    """Guards against trials that differ in what changes no file."""
    holed = for_trials()
    assert [*holed.space] == ["models.judged.source.arguments.width"]
    assert not holed.for_layers
    assert [*holed.at(holed.space.lowest).models] == ["judged"]
    assert holed.check()
    assert [*for_trials(model="left").space] == [
        "models.left.source.arguments.width",
        "models.left.stages.0.overrides.*",
    ]


@pytest.mark.parametrize(
    "setting", ["data.seed", "data.validation", "data.source", "data", "metric", "task", "ignore_index", "root"]
)
def test_what_trials_are_judged_by_has_no_hole(setting):
    """Guards against a search for the easiest examples to hold out."""
    holed = read_holed_recipe(TREE, [f"{setting}={{choose: [1, 2]}}"])
    with pytest.raises(SpecError, match=f"recipe.{setting}: a hole here would judge"):
        holed.check()


@pytest.mark.parametrize(
    ("stage", "path", "told"),
    [
        ({"stage": "quantize", "scales": {"choose": ["mse", "gtpq"]}}, "scales", "'gtpq'; did you mean 'gptq'"),
        ({"stage": "quantize", "scales": {"choose": ["gtpq", "mse"]}}, "scales", "'gtpq'; did you mean 'gptq'"),
        ({"stage": "quantize", "observer": {"choose": ["auto", "minmx"]}}, "observer", "no observer named 'minmx'"),
        ({"stage": "quantize", "scheme": {"choose": ["affine", "apotto"]}}, "scheme", "no scheme named 'apotto'"),
        ({"stage": "quantize", "bits": {"between": [2, 99]}}, "bits", "99"),
        ({"stage": "quantize", "granularity": {"choose": ["tensor", "grup:8"]}}, "granularity", "grup"),
        ({"stage": "prune_weights", "sparsity": 0.5, "score": {"choose": ["obs", "wandu"]}}, "score", "mean 'wanda'"),
        ({"stage": "prune_weights", "sparsity": {"between": [0.5, 1.5]}}, "sparsity", "1.5 is no share"),
        ({"stage": "prune_channels", "channels": 0.5, "score": {"choose": ["l2", "tailor"]}}, "score", "mean 'taylor'"),
        ({"stage": "prune_layers", "layers": 1, "score": {"choose": ["loss", "losses"]}}, "score", "mean 'loss'"),
        ({"stage": "prune", "epochs": 1, "sparsity": 0.5, "shape": {"choose": ["cubic", "cubik"]}}, "shape", "'cubic'"),
        ({"stage": "prune", "epochs": 1, "sparsity": 0.5, "scope": {"choose": ["lamp", "lump"]}}, "scope", "'lamp'"),
        ({"stage": "quantize", "epochs": 1, "scales": {"choose": ["mse", "msee"]}}, "scales", "'mse'"),
        ({"stage": {"choose": ["quantize", "quantise"]}}, "stage", "'quantize'"),
        ({"stage": "train", "epochs": {"between": [0, 3]}}, "epochs", "0"),
        ({"stage": "train", "epochs": 2, "optimizer": {"choose": ["sgd", "sdg"]}}, "optimizer", "'sgd'"),
        ({"stage": "finetune", "epochs": 2, "objective": [{"choose": ["kl", "kll"]}]}, "objective.0", "'kl'"),
    ],
)
def test_every_value_of_a_hole_is_checked_before_the_first_trial(stage, path, told):
    """Guards against a search that finds out in its trials that a word is misspelled."""
    models = {"net": {**net(), "stages": [stage]}}
    with pytest.raises(SpecError) as caught:
        read_holed_recipe({**TREE, "models": models}).check()
    assert str(caught.value).startswith(f"recipe.models.net.stages.0.{path}")
    assert told in str(caught.value)


def test_how_trials_train_may_have_holes():
    assert read_holed_recipe(TREE, ["data.calibration={choose: [64, 128]}"]).check().data.calibration == 64


def test_all_models_may_be_one_choice():
    tree = TREE | {"models": {"choose": [{"net": net(width=1)}, {"net": net(width=2), "more": net(width=3)}]}}
    holed = read_holed_recipe(tree)
    holed = holed.for_trials(holed.check())
    points = [{"models": each} for each in tree["models"]["choose"]]
    assert [holed.at(each).models["net"].source.arguments for each in points] == [{"width": 1}, {"width": 2}]


def test_files_of_all_choices_must_be_unchanged(tmp_path):
    """Guards against trials before and after a change of a file that the first choice does not name."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("def net():\n    return None\n")
    tree = {
        "data": {"source": "digits"},
        "models": {"net": {"source": {"choose": ["one.py:net", "two.py:net"]}}},
        "search": {"minimise": "bytes"},
        "root": str(tmp_path),
    }
    holed = read_holed_recipe(tree)
    assert [[*file_facts(each)] for each in (holed.check(), *holed.worded())] == [["one.py"], ["two.py"]]
    assert not [*for_trials().worded()]


def test_a_model_that_no_hole_changes_is_not_searched():
    with pytest.raises(SpecError, match=r"search\.model: no hole changes 'fixed'.*name one of left, judged"):
        for_trials(model="fixed")
    with pytest.raises(UnknownName, match="no model named 'juged'"):
        for_trials(model="juged")
