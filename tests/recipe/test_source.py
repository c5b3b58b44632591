import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from attar.artifact.writer import pack, write
from attar.core.errors import ArtifactError, ModelError, SpecError
from attar.core.tensors import Dense
from attar.model.trace import trace
from attar.recipe.source import build
from attar.work.workpiece import Use, Workpiece


class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(3, width)

    def forward(self, x):
        return self.layer(x)


@pytest.fixture
def state():
    return {name: torch.full_like(value, 2.0) for name, value in Small().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_safetensors_and_state_dicts(tmp_path, state, prefix):
    named = {prefix + name: value for name, value in state.items()}
    safetensors.torch.save_file(named, tmp_path / "w.safetensors")
    torch.save(named, tmp_path / "w.pt")
    torch.save({"state_dict": named, "epoch": 3}, tmp_path / "c.pt")
    for name in ("w.safetensors", "w.pt", "c.pt"):
        module = build(Small, {}, tmp_path / name)
        assert (module.layer.weight == 2).all()


def test_nothing_in_a_weights_file_is_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / "w.pt").write_bytes(pickle.dumps({"layer.weight": Evil()}))
    torch.save({"layer.weight": Evil()}, tmp_path / "v.pt")
    for name in ("w.pt", "v.pt"):
        with pytest.raises(SpecError, match="neither safetensors nor a state dict"):
            build(Small, {}, tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_weights(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((SpecError, ModelError)):
        build(Small, {}, tmp_path / name)


def test_weights_that_do_not_fit_are_named(tmp_path, state):
    state["layr.bias"] = state.pop("layer.bias")
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"layer\.bias is missing.*layr\.bias.*did you mean 'layer\.bias'"):
        build(Small, {}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"layer\.weight is \(4, 3\) in the file and \(5, 3\)"):
        build(Small, {"width": 5}, tmp_path / "w.safetensors")


def test_factories_that_cannot_work(tmp_path):
    with pytest.raises(SpecError, match="wdth"):
        build(Small, {"wdth": 5}, tmp_path / "none")
    with pytest.raises(SpecError, match="made a dict"):
        build(dict, {}, tmp_path / "none")
    with pytest.raises(SpecError, match="no factory"):
        build(3, {}, tmp_path / "none")
    with pytest.raises(SpecError, match="no weights at"):
        build(Small, {}, tmp_path / "none")


@pytest.mark.parametrize("fault", [ValueError("width must be even"), KeyError("width"), ZeroDivisionError()])
def test_a_factory_that_raises_is_named_with_what_it_raised(tmp_path, fault):
    def net(width):
        raise fault

    with pytest.raises(ModelError, match=r"the factory .*net was called with \{'width': 3\}") as caught:
        build(net, {"width": 3}, tmp_path / "none")
    assert repr(fault) in str(caught.value)
    assert caught.value.__cause__ is fault


def test_weights_of_a_packed_file_go_on_where_it_ended(tmp_path, state):
    traced = trace(Small(), (torch.randn(2, 3),))
    halves = {name: Dense(value.numpy().astype(np.float16), "f16") for name, value in state.items()}
    write(tmp_path / "w.attar", pack(Workpiece(traced, halves).contents(Use())))
    module = build(Small, {}, tmp_path / "w.attar")
    assert (module.layer.weight == 2).all()
    assert module.layer.weight.dtype == torch.float32
    with pytest.raises(ModelError, match=r"layer.weight is \(4, 3\) in the file and \(5, 3\) in the module"):
        build(Small, {"width": 5}, tmp_path / "w.attar")


def test_a_damaged_packed_file_is_refused(tmp_path):
    (tmp_path / "w.attar").write_bytes(b"ATTR" + bytes(60))
    with pytest.raises(ArtifactError):
        build(Small, {}, tmp_path / "w.attar")
