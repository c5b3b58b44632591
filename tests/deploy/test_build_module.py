import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import ArtifactError, ModelError, SpecError
from attar._src.core.tensors import Dense
from attar._src.deploy.build_module import build_module
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph, trace
from attar._src.work.compressed_model import CompressedModel, FileInfo


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
        module = build_module(Small, {}, tmp_path / name)
        assert (module.layer.weight == 2).all()


def test_nothing_in_a_weights_file_is_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / "w.pt").write_bytes(pickle.dumps({"layer.weight": Evil()}))
    torch.save({"layer.weight": Evil()}, tmp_path / "v.pt")
    for name in ("w.pt", "v.pt"):
        with pytest.raises(SpecError, match="holds Python objects"):
            build_module(Small, {}, tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_weights(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((SpecError, ModelError)):
        build_module(Small, {}, tmp_path / name)


def test_weights_that_do_not_fit_are_named(tmp_path, state):
    state["layr.bias"] = state.pop("layer.bias")
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"layer\.bias is missing.*layr\.bias.*did you mean 'layer\.bias'"):
        build_module(Small, {}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"layer\.weight is \(4, 3\) in the file and \(5, 3\)"):
        build_module(Small, {"width": 5}, tmp_path / "w.safetensors")


def test_factories_that_cannot_work(tmp_path):
    with pytest.raises(SpecError, match="wdth"):
        build_module(Small, {"wdth": 5}, tmp_path / "none")
    with pytest.raises(SpecError, match="returned a dict"):
        build_module(dict, {}, tmp_path / "none")
    with pytest.raises(SpecError, match="no factory"):
        build_module(3, {}, tmp_path / "none")
    with pytest.raises(SpecError, match="no weights at"):
        build_module(Small, {}, tmp_path / "none")


@pytest.mark.parametrize("fault", [ValueError("width must be even"), KeyError("width"), ZeroDivisionError()])
def test_a_factory_that_raises_is_named_with_what_it_raised(tmp_path, fault):
    def net(width):
        raise fault

    with pytest.raises(ModelError, match=r"the factory .*net was called with \{'width': 3\}") as caught:
        build_module(net, {"width": 3}, tmp_path / "none")
    assert repr(fault) in str(caught.value)
    assert caught.value.__cause__ is fault


def test_weights_of_a_packed_file_go_on_where_it_ended(tmp_path, state):
    traced = trace(Small(), (torch.randn(2, 3),))
    halves = {name: Dense(value.numpy().astype(np.float16), "f16") for name, value in state.items()}
    write_atomically(tmp_path / "w.attar", pack(CompressedModel.of(traced, tensors=halves).contents(FileInfo())))
    module = build_module(Small, {}, tmp_path / "w.attar")
    assert (module.layer.weight == 2).all()
    assert module.layer.weight.dtype == torch.float32
    with pytest.raises(ModelError, match=r"layer.weight is \(4, 3\) in the file and \(5, 3\) in the module"):
        build_module(Small, {"width": 5}, tmp_path / "w.attar")


def test_a_damaged_packed_file_is_refused(tmp_path):
    (tmp_path / "w.attar").write_bytes(b"ATTR" + bytes(60))
    with pytest.raises(ArtifactError):
        build_module(Small, {}, tmp_path / "w.attar")


class Placed(nn.Module):
    """Its places are no state: a buffer that is not kept, an attribute, and tables its code makes."""

    def __init__(self, width=20):
        super().__init__()
        self.layer = nn.Linear(20, 20)
        self.inner = nn.Module()
        self.inner.register_buffer("pos", torch.arange(float(width)), persistent=False)
        self.shift = torch.arange(20.0) / 2

    def forward(self, x):
        x = self.layer(x + self.inner.pos + self.shift) * torch.linspace(0, 1, 20)
        return x + torch.tensor([float(i % 3) for i in range(20)])


def packed(module, path, *, merge=False):
    example = (torch.randn(2, 20),)
    write_atomically(
        path, pack(CompressedModel.of(deploy_graph(module, capture(module, example), merge=merge)).contents(FileInfo()))
    )
    return path


def test_what_a_module_makes_itself_may_be_in_a_packed_file(tmp_path):
    made = Placed()
    path = packed(made, tmp_path / "w.attar")
    assert {"inner.pos", "shift", "linspace"} < set(open_artifact(path).names)
    assert any("lifted_tensor" in name for name in open_artifact(path).names)
    found = build_module(Placed, {}, path)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in made.state_dict().items())
    with pytest.raises(ModelError, match=r"no tensor named 'inner\.pos'"):
        build_module(Placed, {"width": 21}, path)


class Foreign(nn.Module):
    def __init__(self, *, buffer):
        super().__init__()
        self.layer = nn.Linear(20, 20)
        scale = torch.rand(20)
        # The second would pass for the value of an operator.
        if buffer:
            self.register_buffer("gauge", scale)
        else:
            self.mean = nn.Parameter(scale)

    def forward(self, x):
        return self.layer(x) * (self.gauge if hasattr(self, "gauge") else self.mean)


@pytest.mark.parametrize(("buffer", "name"), [(True, "gauge"), (False, "mean")])
def test_a_packed_file_of_another_module_is_refused(tmp_path, buffer, name):
    path = packed(Foreign(buffer=buffer), tmp_path / "w.attar")
    with pytest.raises(ModelError, match=f"no tensor named '{name}'"):
        build_module(Placed, {}, path)


class Normed(nn.Module):
    """The first norm can be folded, the second stays."""

    def __init__(self, *, first=False):
        super().__init__()
        self.layer, self.after = nn.Linear(20, 20), nn.BatchNorm1d(20) if first else nn.Identity()
        self.norm = nn.BatchNorm1d(20)

    def forward(self, x):
        return self.norm(torch.relu(self.after(self.layer(x))))


def test_batch_norms_that_a_packed_file_has_no_more_are_named(tmp_path):
    build_module(Normed, {}, packed(Normed(), tmp_path / "whole.attar"))
    merged = packed(Normed(), tmp_path / "merged.attar", merge=True)
    with pytest.raises(
        ModelError, match=r"'norm' was merged into two vectors.*merge: false on low_precision or compress"
    ):
        build_module(Normed, {}, merged)
    folded = packed(Normed(first=True), tmp_path / "folded.attar")
    with pytest.raises(ModelError, match=r"'after' was folded into 'layer'.*start from a checkpoint or safetensors"):
        build_module(Normed, {"first": True}, folded)
