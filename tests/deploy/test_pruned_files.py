"""``attar.prune`` and the files of pruned modules.

Guards against files that tell too little to rebuild the module, modules that differ after a rebuild, and records that a
stranger wrote.
"""

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.model.dependencies.networks import made
from torch import nn

import attar
from attar._src.core.errors import DataError, ModelError, SpecError
from attar._src.deploy.build_module import build_module
from attar._src.deploy.pruning.removals import removals_of
from attar._src.model.dependencies.record import remove_recorded

NETS = ["padded shortcut, a module", "padded shortcut, an attribute", "padded shortcut, a number", "groups"]
NETS += ["heads, unbound", "lstm", "split by an attribute"]


@pytest.mark.parametrize("name", NETS)
def test_a_file_rebuilds_the_pruned_module(name, tmp_path):
    module, x = made(name)
    before = copy.deepcopy(module)
    result = attar.prune(module, torch.randn(32, *x.shape[1:]), channels=0.4)
    assert str(module) == str(before)
    assert all(map(torch.equal, module.state_dict().values(), before.state_dict().values()))
    report = result.save(tmp_path / "m.attar")["pruning"]
    for key in ("macs", "parameters", "nonzero", "file_bytes"):
        assert report[key][1] < report[key][0], key
    assert min(report["latency_ms"]) > 0
    wanted = result.module(x).detach()
    for make in (lambda: copy.deepcopy(before), lambda: copy.deepcopy(before).double()):
        into = make()
        attar.load(tmp_path / "m.attar", into=into)
        torch.testing.assert_close(into(x.to(next(into.parameters()).dtype)).float(), wanted, rtol=1e-4, atol=1e-4)
        assert {key: each.shape for key, each in into.state_dict().items()} == {
            key: each.shape for key, each in result.module.state_dict().items()
        }
    # The weights alone, and those of the pruned module itself.
    result.save_weights(tmp_path / "w.safetensors")
    rebuilt = build_module(lambda: copy.deepcopy(before), {}, tmp_path / "w.safetensors")
    assert torch.equal(rebuilt.eval()(x), result.module.eval()(x))
    attar.load(tmp_path / "m.attar", into=copy.deepcopy(result.module))


def test_pruned_twice_then_quantized(tmp_path):
    module, x = made("padded shortcut, a module")
    data = torch.randn(64, *x.shape[1:])
    once = attar.prune(module, data, channels=0.25, score="l1")
    twice = attar.prune(once.module, data, channels=0.25, score="random", seed=1)
    quantized = attar.quantize(twice.module, data, bits=8, tolerance=None)
    quantized.save(tmp_path / "m.attar")
    into = made("padded shortcut, a module")[0]
    loaded = attar.load(tmp_path / "m.attar", into=into)
    assert into.a.weight.shape == twice.module.a.weight.shape
    session = attar.Session(tmp_path / "m.attar")
    np.testing.assert_allclose(session.run(x.numpy()), loaded(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert len(removals_of(session.artifact.manifest)) == 2


def test_scores_by_gradient_need_labels():
    module, x = made("batch-norm")
    data = torch.randn(32, *x.shape[1:])
    with pytest.raises(DataError, match="needs labels; use l1, l2 or batch_norm"):
        attar.prune(module, data, channels=0.5, score="taylor")
    by_labels = attar.prune(module, data, channels=0.5, score="taylor", labels=torch.randint(0, 5, (32,)))
    assert by_labels.pruned.groups["0.weight"] == (4, 8)


def test_what_is_measured_is_told():
    module, x = made("batch-norm")
    result = attar.prune(module, x, channels=0.5)
    assert repr(result) == "<PruningResult: 377 of 1,181 parameters, 46,686 of 155,580 multiplications>"
    assert result.figures["widths"] == {"0.weight": [8, 4], "3.weight": [12, 6]}
    assert result.excluded == {"6.weight": "the model's output has its channels"}
    with pytest.raises(SpecError, match=r"written as \.safetensors"):
        result.save_weights("w.pt")


@pytest.mark.parametrize(
    "record",
    [
        {"units": {"9.weight": "1"}},
        {"units": {"0.weight": "fff"}},
        {"units": {"0.weight": "no"}},
        {"units": {"0.weight": "-1"}},
        {"units": ["0.weight"]},
        {"units": {"0.weight": 1}},
        {"units": {}, "sizes": {"0.weight.shape": 2}},
        {"units": {}, "sizes": {"0.stride.7": 2}},
        {"units": {}, "sizes": {"0.out_channels": -1}},
        {"units": {}, "sizes": {"0.__class__": 1}},
        {"units": {"0.weight": "ff"}},
    ],
)
def test_a_record_that_does_not_fit_is_refused(record):
    module, x = made("batch-norm")
    captured = attar.prune(module, x, channels=0.5).captured
    before = copy.deepcopy(module)
    with pytest.raises(ModelError, match=r"record of removed channels is damaged|give the module as it was before"):
        remove_recorded(module, captured, record)
    assert all(map(torch.equal, module.state_dict().values(), before.state_dict().values()))


def test_weights_with_a_damaged_record(tmp_path):
    module, _ = made("batch-norm")
    for told in ("[", json.dumps({"inputs": [["float99", [1]]], "removals": [], "names": []}), json.dumps([1])):
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file(module.state_dict(), path, {"attar_removals": told})
        with pytest.raises(SpecError, match="its record of removed channels is damaged"):
            build_module(lambda: copy.deepcopy(module), {}, path)


def test_a_module_of_another_kind_is_refused(tmp_path):
    module, x = made("batch-norm")
    attar.prune(module, torch.randn(16, *x.shape[1:]), channels=0.5).save(tmp_path / "m.attar")
    with pytest.raises(ModelError, match="give the module as it was before"):
        attar.load(tmp_path / "m.attar", into=nn.Sequential(nn.Flatten(), nn.Linear(432, 5)))
