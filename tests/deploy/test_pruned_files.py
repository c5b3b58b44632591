"""``attar.prune`` and the files of pruned modules.

Guards against files that tell too little to rebuild the module, modules that differ after a rebuild, and records that a
stranger wrote.
"""

import copy
import json
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.attacks.reseal import take_apart
from tests.model.dependencies.networks import made
from torch import nn

import attar
from attar._src.core.errors import ArtifactError, DataError, ModelError, SpecError
from attar._src.deploy.build_module import build_module
from attar._src.deploy.pruning.removals import removals_of
from attar._src.deploy.pruning.to_latency import milliseconds_of
from attar._src.model.dependencies.record import Removal, removal_records, remove_recorded

NETS = ["padded shortcut, a module", "padded shortcut, an attribute", "padded shortcut, a number", "groups"]
NETS += ["heads, unbound", "lstm", "split by an attribute"]
#: Those whose file goes into a module in double precision, in a copy of which it is followed first.
DOUBLE = {"padded shortcut, an attribute", "heads, unbound", "lstm"}


@pytest.mark.parametrize("name", NETS)
def test_a_file_rebuilds_the_pruned_module(name, tmp_path):
    module, x = made(name)
    before = copy.deepcopy(module)
    result = attar.prune(module, torch.randn(32, *x.shape[1:]), channels=0.4)
    assert str(module) == str(before)
    assert all(map(torch.equal, module.state_dict().values(), before.state_dict().values()))
    saved = result.save(tmp_path / "m.attar")
    report = saved["pruning"]
    assert json.loads((tmp_path / "report.json").read_text())[saved["sha256"]]["pruning"] == report
    for key in ("macs", "parameters", "nonzero", "file_bytes"):
        assert report[key][1] < report[key][0], key
    assert min(report["latency_ms"]) > 0
    wanted = result.module(x).detach()
    into = copy.deepcopy(before).double() if name in DOUBLE else copy.deepcopy(before)
    attar.load(tmp_path / "m.attar", into=into)
    torch.testing.assert_close(into(x.to(next(into.parameters()).dtype)).float(), wanted, rtol=1e-4, atol=1e-4)
    assert {key: each.shape for key, each in into.state_dict().items()} == {
        key: each.shape for key, each in result.module.state_dict().items()
    }
    # The weights alone, and those of the pruned module itself.
    result.save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="go into --weights"):
        attar.load(tmp_path / "w.safetensors", into=copy.deepcopy(before))
    rebuilt = build_module(lambda: copy.deepcopy(before), {}, tmp_path / "w.safetensors")
    assert torch.equal(rebuilt.eval()(x), result.module.eval()(x))
    torch.save(result.module.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="If channels were removed from it, write the weights with save_weights"):
        build_module(lambda: copy.deepcopy(before), {}, tmp_path / "w.pt")
    attar.load(tmp_path / "m.attar", into=copy.deepcopy(result.module))
    assert not saved["fidelity"]["trained_since"]


def test_a_file_tells_whether_the_pruned_module_was_trained(tmp_path):
    """Guards the report: outputs that training changed are no loss in themselves."""
    module, x = made("batch-norm")
    result = attar.prune(module, x, channels=0.5)
    with torch.no_grad():
        next(result.module.parameters()).mul_(1.5)
    assert result.save(tmp_path / "m.attar")["fidelity"]["trained_since"]


def test_a_module_partly_in_half_precision_is_rebuilt(tmp_path):
    """Guards against removing twice: its copy in float32 shares the tensors that are in float32 already."""
    module, x = made("batch-norm")
    result = attar.prune(module, x, channels=0.5)
    result.save(tmp_path / "m.attar")
    into = copy.deepcopy(module)
    into[-1].half()
    attar.load(tmp_path / "m.attar", into=into)
    torch.testing.assert_close(into.float()(x), result.module(x), rtol=1e-2, atol=1e-2)


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
    with pytest.raises(DataError, match="needs labels; use l1, l2, wanda or batch_norm"):
        attar.prune(module, data, channels=0.5, score="taylor")
    with torch.no_grad():
        labels = module.eval()(data).argmax(1)
    by_labels = attar.prune(module, data, channels=0.5, score="taylor", labels=labels)
    with torch.no_grad():
        after = float((by_labels.module.eval()(data).argmax(1) == labels).float().mean())
    assert by_labels.figures["metric"] == {
        "name": "accuracy",
        "before": 1.0,
        "after": pytest.approx(after),
        "examples": 32,
    }
    assert "metric" not in attar.prune(module, data, channels=0.5).figures
    assert by_labels.pruned.groups["0.weight"] == (4, 8)


def test_what_is_left_and_what_stays_is_told():
    module, x = made("batch-norm")
    result = attar.prune(module, x, channels=0.5)
    assert repr(result) == "<PruningResult: 377 of 1,181 parameters, 46,686 of 155,580 multiplications>"
    assert result.figures["widths"] == {"0.weight": [8, 4], "3.weight": [12, 6]}
    assert result.excluded == {"6.weight": "the model's output has its channels"}
    with pytest.raises(SpecError, match=r"written as \.safetensors"):
        result.save_weights("w.pt")


#: Records that no module has, as any reader sees.
DAMAGED = [
    1,
    {},
    {"units": ["0.weight"]},
    {"units": {"0.weight": 1}},
    {"units": {"0.weight": "no"}},
    {"units": {"0.weight": "-1"}},
    {"units": {"0.weight": " 0x1_1 "}},
    {"units": {}, "sizes": {"0.out_channels": -1}},
    {"units": {}, "sizes": {"0.out_channels": 2.0}},
    {"units": {}, "sizes": {"0.out_channels": True}},
    {"units": {}, "fixed_fills": 1},
    {"units": {}, "code": "import os"},
    {"units": {}, "dropped": "0"},
    {"units": {}, "dropped": [0]},
    {"units": {}, "skipped": {"0": {"argument": -1}}},
    {"units": {}, "skipped": {"0": {"argument": 0, "entries": 100}}},
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The file of a pruned module."""
    path = tmp_path_factory.mktemp("sound") / "m.attar"
    module, x = made("batch-norm")
    attar.prune(module, x, channels=0.5).save(path)
    return path


@pytest.mark.parametrize("record", DAMAGED)
def test_a_damaged_record_is_refused(record, sound, tmp_path):
    module, x = made("batch-norm")
    parts = take_apart(sound.read_bytes())
    parts.manifest["recipe"]["stages"][0]["removed"] = record
    (tmp_path / "d.attar").write_bytes(parts.seal())
    said = "record of removals is damaged"
    with pytest.raises(ArtifactError, match=said):
        attar.load(tmp_path / "d.attar", into=module)
    told = {"removals": [record], "inputs": [{"dtype": "float32", "shape": [*x.shape]}], "names": []}
    with pytest.raises(SpecError, match=said):
        build_module(lambda: module, {}, written(module, told, tmp_path))


@pytest.fixture(scope="module")
def pruned():
    """Name of a network -> the network, which stays as it is, and the result of pruning it; made once."""

    @cache
    def get(name):
        module, x = made(name)
        return module, attar.prune(module, x, channels=0.5)

    return get


@pytest.mark.parametrize(
    "record",
    [
        {"units": {"9.weight": "1"}},
        {"units": {"0.weight": "fff"}},
        {"units": {"0.weight": "ff"}},
        {"units": {"0.weight": "f" * 6000}},
        {"units": {}, "sizes": {"0.weight.shape": 2}},
        {"units": {}, "sizes": {"0.stride.7": 2}},
        {"units": {}, "sizes": {"0.stride.0": 1}},
        {"units": {}, "sizes": {"0.__class__": 1}},
        {"units": {"0.weight": "1"}, "sizes": {"0.out_channels": 7}},
        {"units": {"0.weight": "1"}, "sizes": {"1._version": 1}},
    ],
)
def test_a_record_that_does_not_fit_is_refused(record, pruned):
    module, result = pruned("batch-norm")
    before = copy.deepcopy(module)
    with pytest.raises(ModelError, match="give the module as it was before"):
        remove_recorded(module, result.captured, Removal.model_validate(record))
    assert all(map(torch.equal, module.state_dict().values(), before.state_dict().values()))


@pytest.mark.parametrize("size", [3, 5, 8, 10**9])
def test_an_attribute_gets_the_number_of_channels_that_are_left_and_no_other(size, pruned):
    module, result = pruned("split by an attribute")
    record = result.pruned.record
    assert record["sizes"] == {"width": 4}
    with pytest.raises(ModelError, match="parts counted by width were removed"):
        remove_recorded(module, result.captured, Removal.model_validate(record | {"sizes": {"width": size}}))
    assert module.width == 8


def written(module, told, folder):
    """A file of weights with this record."""
    path = folder / "w.safetensors"
    safetensors.torch.save_file(
        module.state_dict(), path, {"attar_removals": told if isinstance(told, str) else json.dumps(told)}
    )
    return path


@pytest.mark.parametrize(
    "told",
    [
        "[",
        "[" * 100_000,
        [1],
        {},
        {"inputs": 0},
        {"removals": "abc"},
        {"names": [1]},
        {"names": ["x", "y"]},
        {"inputs": [["float32", [2, 3]]]},
        {"inputs": [{"dtype": "float99", "shape": [2]}]},
        {"inputs": [{"dtype": "float32", "shape": ["a"]}]},
        {"inputs": [{"dtype": "float32", "shape": [[]]}]},
        {"inputs": [{"dtype": "float32", "shape": [-1]}]},
        {"inputs": [{"dtype": "float32", "shape": [10**9, 3]}]},
        {"inputs": [{"dtype": "float32", "shape": [0, 2**40]}]},
        {"inputs": [{"dtype": "float32", "shape": [10**100]}]},
    ],
)
def test_weights_with_a_damaged_record(told, tmp_path):
    module, x = made("batch-norm")
    fine = {"removals": [], "inputs": [{"dtype": "float32", "shape": [*x.shape]}], "names": []}
    damaged = {**fine, **told} if isinstance(told, dict) and told else told
    with pytest.raises(SpecError, match="its record of removals is damaged"):
        build_module(lambda: module, {}, written(module, damaged, tmp_path))


def test_a_file_announces_no_inputs_that_memory_cannot_hold(sound):
    module, _ = made("batch-norm")
    with pytest.raises(ArtifactError, match="value_elements: its inputs have 864 elements, more than the limit of 863"):
        attar.load(sound, into=module, limits=attar.Limits(value_elements=863))


class Wrapped(nn.Module):
    """A module inside another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("name", ["split by an attribute", "padded shortcut, a module"])
def test_a_pruned_module_goes_into_another(name, tmp_path):
    module, x = made(name)
    data = torch.randn(32, *x.shape[1:])
    inner = attar.prune(module, data, channels=0.25).module
    outer = attar.prune(Wrapped(inner), data, channels=0.25).module
    outer.inner = attar.prune(outer.inner, data, channels=0.25).module
    attar.quantize(outer, data, bits=8, tolerance=None).save(tmp_path / "m.attar")
    into = Wrapped(made(name)[0])
    attar.load(tmp_path / "m.attar", into=into)
    shapes = {key: each.shape for key, each in outer.state_dict().items()}
    assert {key: each.shape for key, each in into.state_dict().items()} == shapes
    assert removal_records(into) == removal_records(outer)
    assert len(removal_records(into)) == 3
    # A module from which some of it was removed before takes the rest.
    attar.load(tmp_path / "m.attar", into=Wrapped(copy.deepcopy(inner)))


@pytest.mark.parametrize("name", ["split by an attribute", "padded shortcut, a number", "lstm"])
def test_a_load_that_fails_leaves_the_module(name, tmp_path):
    module, x = made(name)
    data = torch.randn(32, *x.shape[1:])
    once = attar.prune(module, data, channels=0.25)
    attar.prune(once.module, data, channels=0.25).save(tmp_path / "m.attar")
    last = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]
    last.bias = None
    weights = {key: each.shape for key, each in module.state_dict().items()}
    for into in (module, copy.deepcopy(module).double()):
        said = str(attributes(into))
        with pytest.raises(ModelError, match="made from another module"):
            attar.load(tmp_path / "m.attar", into=into)
        assert {key: each.shape for key, each in into.state_dict().items()} == weights
        assert str(attributes(into)) == said
    with pytest.raises(ModelError, match=r"does not fit|was folded"):
        build_module(lambda: module, {}, tmp_path / "m.attar")
    assert {key: each.shape for key, each in module.state_dict().items()} == weights


def attributes(module):
    """The attributes of a module and its submodules, tensors by their places."""
    return [dict(vars(part)) for part in module.modules()]


class Residual(nn.Module):
    """A layer with a shortcut, whose hidden channels can be removed, too."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.narrow(self.wide(x).relu())


class Encoder(nn.TransformerEncoder):
    """With layers whose export takes a fifth of the time."""

    def __init__(self):
        super().__init__(Residual(), 3, enable_nested_tensor=False)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_file_without_layers_rebuilds_the_module(tmp_path):
    """Layers, then channels, then layers again: each record is of the names that there were."""
    torch.manual_seed(0)
    before, x = nn.Sequential(nn.Linear(5, 8), Encoder()), torch.randn(32, 6, 5)
    once = attar.prune(before, x, layers=1)
    assert len(once.module[1].layers) == 2
    narrower = attar.prune(once.module, x, channels=0.25)
    twice = attar.prune(narrower.module, x, layers=1, score="output")
    report = twice.save(tmp_path / "m.attar")["pruning"]
    assert report["layers"] == [2, 1]
    assert report["removed"] == list(twice.pruned.removed)
    for key in ("macs", "parameters", "file_bytes"):
        assert report[key][1] < report[key][0]
    assert [each.of_layers for each in removal_records(twice.module)] == [True, False, True]
    twice.save_weights(tmp_path / "w.safetensors")
    wanted = twice.module.eval()(x).detach()
    for into in (copy.deepcopy(before), copy.deepcopy(once.module)):
        attar.load(tmp_path / "m.attar", into=into)
        assert len(into[1].layers) == into[1].num_layers == 1
        torch.testing.assert_close(into.eval()(x), wanted, rtol=1e-4, atol=1e-4)
    rebuilt = build_module(lambda: copy.deepcopy(before), {}, tmp_path / "w.safetensors")
    assert torch.equal(rebuilt.eval()(x), wanted)
    # Another module has no such layers; it stays as it was.
    other = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 8))
    with pytest.raises(ModelError, match=r"the layer 1\.layers\.\d were removed.*give the module as it was before"):
        attar.load(tmp_path / "m.attar", into=other)
    assert len(other) == 2


class Step(nn.Module):
    """A residual layer that gets its input by name and returns a tuple."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, scale, *, hidden):
        return hidden + scale * self.linear(hidden), None


class Counted(nn.Module):
    """Code that indexes its layers, and needs as many as before."""

    def __init__(self):
        super().__init__()
        self.first, self.steps = nn.Linear(5, 8), nn.ModuleList([Step(), Step(), Step()])

    def forward(self, x):
        x = self.first(x)
        for at in range(3):
            x, _ = self.steps[at](0.5, hidden=x)
        return x


def test_a_layer_that_something_takes_the_place_of(tmp_path):
    torch.manual_seed(0)
    module, x = Counted(), torch.randn(32, 5)
    result = attar.prune(module, x, layers=1)
    (path,) = result.pruned.removed
    assert result.pruned.record["skipped"] == {path: {"argument": "hidden", "entries": 2}}
    assert not [*result.module.get_submodule(path).parameters()]
    result.save(tmp_path / "m.attar")
    wanted = result.module(x).detach()
    for into in (copy.deepcopy(module), copy.deepcopy(module).double()):
        attar.load(tmp_path / "m.attar", into=into)
        assert not [*into.get_submodule(path).parameters()]
        torch.testing.assert_close(into(x.to(into.first.weight.dtype)).float(), wanted, rtol=1e-5, atol=1e-5)
    # Pruned once more, and inside another module.
    outer = attar.prune(Wrapped(result.module), x, layers=1).module
    attar.quantize(outer, x, bits=8, tolerance=None).save(tmp_path / "o.attar")
    into = Wrapped(copy.deepcopy(module))
    attar.load(tmp_path / "o.attar", into=into)
    assert len([each for each in into.inner.steps if [*each.parameters()]]) == 1


@pytest.fixture(scope="module")
def residual():
    """A chain of residual layers, and examples."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *(Residual() for _ in range(4))), torch.randn(32, 5)


def test_options_of_channels_and_layers_exclude_each_other(residual):
    module, x = residual
    for options, said in (
        ({"layers": 1, "channels": 0.5}, "layers= is of unit='layer', and unit='channel' is pruned"),
        ({"layers": 1, "unit": "channel"}, "layers= is of unit='layer', and unit='channel' is pruned"),
        ({"unit": "layer", "macs": 0.3, "round_to": 8}, "round_to= is of unit='channel'"),
        ({"unit": "head", "macs": 0.3}, "; or channel, or layer"),
    ):
        with pytest.raises(SpecError, match=said):
            attar.prune(module, x, **options)


def test_a_module_of_another_kind_is_refused(sound):
    with pytest.raises(ModelError, match="give the module as it was before"):
        attar.load(sound, into=nn.Sequential(nn.Flatten(), nn.Linear(432, 5)))


@pytest.mark.parametrize("unit", ["channel", "layer"])
def test_as_little_is_removed_as_a_time_allows(unit, residual, monkeypatch):
    """Time is that of a machine on which every parameter takes a nanosecond."""
    module, x = residual
    count = sum(each.numel() for each in module.parameters())
    monkeypatch.setattr(
        "attar._src.deploy.pruning.prune.milliseconds_of",
        lambda given, **_: sum(each.numel() for each in given.parameters()) * 1e-6,
    )
    target = 0.8 * count * 1e-6
    result = attar.prune(module, x, unit=unit, max_ms=target)
    before, after = result.figures["fitted_ms"]
    assert before == pytest.approx(count * 1e-6)
    assert 0.9 * target < after <= target or (unit == "layer" and result.figures["layers"] == [4, 3])
    assert result.figures["parameters"][1] == round(after * 1e6)
    with pytest.raises(SpecError, match=r"the untouched module takes 0\.00\d+ ms"):
        attar.prune(module, x, unit=unit, max_ms=2 * count * 1e-6)
    with pytest.raises(
        SpecError, match=r"without all that can be removed it takes .* The nearest target is max_ms=0\.00"
    ):
        attar.prune(module, x, unit=unit, max_ms=1e-7)
    with pytest.raises(SpecError, match="max_ms= tells how much is removed; leave out macs="):
        attar.prune(module, x, unit=unit, macs=0.5, max_ms=1.0)


def test_a_time_is_measured(residual):
    """Guards the clock of ``max_ms``: of one example of the file, not of a batch."""
    module, x = residual
    once = attar.prune(module, x, layers=1)
    given = {"captured": once.captured, "use": once.use, "data": once.data, "limits": None}
    assert 0 < milliseconds_of(once.module, **given) < 1000
