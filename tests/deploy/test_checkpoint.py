"""Weights as training frameworks keep them: the state dict is found, its names are a module's, and no code is run."""

import argparse
import collections

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from attar._src.core.errors import ModelError, SpecError
from attar._src.deploy.build_module import build_module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2)
        self.register_buffer("places", torch.arange(4), persistent=False)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight


STATE = {name: torch.full_like(value, 2) for name, value in Net().state_dict().items()}
HALVES = {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()}
MEANS = {name: value * 2 for name, value in STATE.items()}


def under(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


CHECKPOINTS = {
    "plain": STATE,
    "ordered": collections.OrderedDict(STATE),
    "state_dict": {"state_dict": STATE, "epoch": 3, "best": np.float64(0.5)},
    "model": {"model": under("module."), "args": argparse.Namespace(lr=0.1), "scaler": None},
    "model_state_dict": {"model_state_dict": under("_orig_mod."), "optimizer": {"state": {0: {"m": torch.zeros(3)}}}},
    "Lightning": {"state_dict": under("model.") | {"loss.weight": torch.ones(2)}, "hyper_parameters": {"lr": 0.1}},
    "Lightning, compiled": {"state_dict": under("net._orig_mod."), "loops": {}},
    "parallel and compiled": under("module._orig_mod."),
    "any name": {"state_dict": under("encoder.body_of_it.")},
    "a part compiled": {name.replace("body.", "body._orig_mod."): value for name, value in STATE.items()},
    "means alone": {"ema": {"module": STATE}},
    "model and means": {"model": STATE, "ema": MEANS},
    "twice the same": {"student": STATE, "copy": dict(STATE)},
    "float16": {"state_dict": HALVES},
    "a buffer that is not kept": STATE | {"places": torch.arange(4)},
}


def saved(tmp_path, held, name="c.pt"):
    torch.save(held, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_the_weights_of_any_checkpoint_are_found(form, tmp_path):
    module = build_module(Net, {}, saved(tmp_path, CHECKPOINTS[form]))
    assert all((value == 2).all() for value in module.state_dict().values())
    assert all(value.dtype == torch.float32 for value in module.parameters())


def test_arrays_of_numpy_are_weights(tmp_path):
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in under("module.").items()})
    assert (build_module(Net, {}, tmp_path / "w.npz").head.weight == 2).all()


def test_a_copy_that_safetensors_leaves_out_is_not_missing(tmp_path):
    model = Tied()
    safetensors.torch.save_model(model, tmp_path / "w.safetensors")
    assert len(safetensors.torch.load_file(tmp_path / "w.safetensors")) == 1
    loaded = build_module(Tied, {}, tmp_path / "w.safetensors")
    assert torch.equal(loaded.table.weight, model.table.weight)
    assert loaded.head.weight is loaded.table.weight
    safetensors.torch.save_file({"other": torch.zeros(2)}, tmp_path / "o.safetensors")
    with pytest.raises(ModelError, match=r"table\.weight is missing"):
        build_module(Tied, {}, tmp_path / "o.safetensors")


def test_a_lazy_module_takes_the_shapes_of_its_weights(tmp_path):
    found = build_module(
        nn.LazyLinear, {"out_features": 2}, saved(tmp_path, {"weight": torch.ones(2, 4), "bias": torch.ones(2)})
    )
    assert found.weight.shape == (2, 4)
    with pytest.raises(ModelError, match="bias is missing"):
        build_module(nn.LazyLinear, {"out_features": 2}, saved(tmp_path, {"weight": torch.ones(2, 4)}))


def test_an_entry_is_chosen_by_name(tmp_path):
    path = saved(tmp_path, {"model": STATE, "ema": MEANS})
    assert (build_module(Net, {}, path.with_name("c.pt:ema")).head.weight == 4).all()
    with pytest.raises(SpecError, match="no entry named 'emma'; did you mean 'ema'"):
        build_module(Net, {}, path.with_name("c.pt:emma"))
    with pytest.raises(SpecError, match=r"has 2 entries that fit Net: student, teacher; choose one: d\.pt:student"):
        build_module(Net, {}, saved(tmp_path, {"student": STATE, "teacher": MEANS}, "d.pt"))


def test_names_that_do_not_fit_have_the_nearest(tmp_path):
    other = {name.replace("head", "haed"): value for name, value in STATE.items()}
    message = (
        r"\(state_dict\) does not fit Net: head\.weight is missing.*no tensor named 'haed\.weight'; did you mean 'head"
    )
    with pytest.raises(ModelError, match=message):
        build_module(Net, {}, saved(tmp_path, {"state_dict": under("model.", other)}))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_that_would_run_code_are_refused_with_the_way_out(tmp_path):
    message = (
        r"holds Python objects \(.*Net\) and not only tensors: .*torch\.save\(held\.state_dict\(\), 'weights\.pt'\)"
    )
    for held in (Net(), {"model": Net(), "epoch": 3}):
        with pytest.raises(SpecError, match=message):
            build_module(Net, {}, saved(tmp_path, held))
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "s.pt")
    with pytest.raises(SpecError, match=r"is a TorchScript archive; .*torch\.jit\.load\(path\)\.state_dict\(\)"):
        build_module(Net, {}, tmp_path / "s.pt")
    with pytest.raises(SpecError, match="has no state dict"):
        build_module(Net, {}, saved(tmp_path, [1, 2]))
