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
