"""Model sources: a new module for every model, reset for every seed, restored afterwards; missing files are refused."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.pipeline.data_splits import load_splits
from attar._src.pipeline.fabric import run_facts
from attar._src.pipeline.model_source import model_sources
from attar._src.recipe.recipe import Recipe
from attar._src.train.precision import channels_last


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


def recipe(**sources):
    return Recipe(data="digits", models={name: {"source": source} for name, source in sources.items()})


def test_each_seed_begins_with_a_module_of_its_own():
    made = model_sources(recipe(net=net))["net"]
    first = made.module[0].weight.clone()
    made.begin(1)
    assert not torch.equal(made.module[0].weight, first)
    made.begin(0)
    assert torch.equal(made.module[0].weight, first)


def test_one_module_for_two_models_is_refused():
    module = net()
    with pytest.raises(SpecError, match=r"models.pupil.source: its parameter 0.weight is 0.weight of recipe.models.te"):
        model_sources(recipe(teacher=module, pupil=module))
    within = nn.ModuleDict({"body": module})
    with pytest.raises(SpecError, match=r"its parameter body.0.weight is 0.weight of recipe.models.teacher"):
        model_sources(recipe(teacher=module, pupil=within))
    assert set(model_sources(recipe(teacher=module, pupil=copy.deepcopy(module)))) == {"teacher", "pupil"}


def test_a_factory_that_gives_the_same_module_again_is_refused():
    kept = net()
    with pytest.raises(
        SpecError, match=r"recipe.models.net.source.factory: its second call returned the parameter 0.weight"
    ):
        model_sources(recipe(net=lambda: kept))
    with pytest.raises(SpecError, match=r"copy.deepcopy"):
        model_sources(recipe(net=lambda: nn.Sequential(kept, nn.ReLU())))


def test_a_module_is_handed_back_as_it_came():
    module = net()
    values = {name: value.clone() for name, value in module.state_dict().items()}
    strides = {name: parameter.stride() for name, parameter in module.named_parameters()}
    made = model_sources(recipe(net=module))["net"]
    channels_last(module)
    with torch.no_grad():
        module[2].weight.add_(1)
    assert module[2].weight.stride() != strides["2.weight"]
    made.restore()
    assert {name: parameter.stride() for name, parameter in module.named_parameters()} == strides
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())


def test_files_may_lie_in_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(net().state_dict(), tmp_path / "net.pt")
    assert model_sources(recipe(net={"factory": net, "weights": "~/net.pt"}))["net"].module is not None
    with pytest.raises(SpecError, match=f"recipe.models.old.source.file: there is no file {tmp_path}/old.attar"):
        model_sources(recipe(old={"file": "~/old.attar"}, net=net))


def test_a_file_that_is_not_there_is_named_by_its_place_in_the_recipe():
    stages = [{"stage": "finetune", "epochs": 1, "objective": [{"name": "losses.py:focal"}]}]
    own = Recipe(data="digits", models={"net": {"source": net, "stages": stages}})
    sets = load_splits(own.data, Path(), task=None, metric="accuracy")
    with pytest.raises(SpecError, match=r"recipe.models.net.stages.0.objective.0.name: there is no file losses.py"):
        run_facts(own, sets)


def lazy():
    return nn.Sequential(nn.Flatten(1), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(10))


def test_a_lazy_module_gets_its_parameters_from_the_data_for_each_seed():
    asked = recipe(net=lazy)
    splits = load_splits(asked.data, Path(), task=None, metric="accuracy")
    source = model_sources(asked, splits.calibration)["net"]
    assert source.module[1].weight.shape == (8, 64)
    first = source.module[1].weight.clone()
    source.begin(1)
    assert not torch.equal(source.module[1].weight, first)
    source.begin(0)
    assert torch.equal(source.module[1].weight, first)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_a_module_in_a_wrapper_is_trained_itself(wrap):
    module = net()
    source = model_sources(recipe(net=wrap(module)))["net"]
    assert [*source.module.state_dict()] == [*module.state_dict()]
    assert source.notes == ()


def test_a_half_precision_module_is_trained_in_float32_and_says_so():
    module = net().half()
    source = model_sources(recipe(net=module))["net"]
    assert all(each.dtype == torch.float32 for each in source.module.parameters())
    assert source.notes == ("Sequential has 4 tensors of float16; it is computed in float32 on the CPU",)
    assert module[0].weight.dtype == torch.float16


def test_an_exported_program_is_a_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(net().eval(), (torch.randn(2, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, "net.pt2")
    for factory in ("net.pt2", program):
        asked = recipe(net=factory)
        source = model_sources(asked)["net"]
        assert [*source.module.state_dict()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        splits = load_splits(asked.data, Path(), task=None, metric="accuracy")
        assert ("net.pt2" in run_facts(asked, splits)["files"]) == (factory == "net.pt2")


def test_an_entry_of_a_checkpoint_is_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = {name: torch.ones_like(value) for name, value in net().state_dict().items()}
    torch.save({"model": state, "ema": {name: value * 2 for name, value in state.items()}}, "c.pt")
    asked = recipe(net={"factory": net, "weights": "c.pt:ema"})
    assert (model_sources(asked)["net"].module[0].weight == 2).all()
    assert "c.pt" in run_facts(asked, load_splits(asked.data, Path(), task=None, metric="accuracy"))["files"]
