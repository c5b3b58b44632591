import math

import numpy as np
import pytest
import torch
from tests.methods.toys import Net, data
from torch import nn

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.core.errors import AttarError, SpecError
from attar._src.measure.difference import divergence
from attar._src.methods.allocate.changed.anchors import ANCHORS, anchors, between, tells_apart
from attar._src.methods.allocate.changed.changed_runs import ChangedRuns
from attar._src.methods.allocate.coded_bytes import coded_bytes
from attar._src.methods.allocate.judge import OutputError
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.model.programs import copy_graph, set_tensor
from attar._src.model.trace import trace
from attar._src.pipeline.sensitivities.folder import SensitivityFolder


class TiedText(nn.Module):
    """An embedding, a GRU, and an output layer tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.table, self.gru = nn.Embedding(20, 16), nn.GRU(16, 16, batch_first=True)
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids):
        return self.out(self.gru(self.table(ids))[0])


@pytest.fixture(scope="module")
def trained():
    """A network that has learned its task, so that its labels count."""
    torch.manual_seed(0)
    net, (x, y) = Net(), data(256)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


@pytest.fixture(scope="module")
def table(trained):
    net, x, y = trained
    return attar.sensitivity(net, x, labels=y, levels=(2, 4, 8), examples=128, scales="absmax")


def test_fewer_bits_cost_more_error_and_fewer_bytes(table):
    assert [layer.name for layer in table.layers] == ["first.weight", "second.weight", "head.weight"]
    assert (table.kind, table.metric, table.examples) == ("scores", "accuracy", 128)
    for layer in table.layers:
        two, four, eight = layer.levels
        assert two.error > four.error > eight.error > 0
        assert two.bytes < four.bytes < eight.bytes
        assert two.kl > four.kl > eight.kl > 0
        assert 0 <= eight.changed <= two.changed <= 1
        assert two.signal_to_noise_db == pytest.approx(-10 * np.log10(two.error))
        assert abs(eight.metric - table.floating) < 0.02


def test_gradients_estimate_the_kl_of_small_errors(table):
    for layer in table.layers:
        assert 0.4 < layer.at(4).estimate / layer.at(4).kl < 2.5, layer.name


def test_an_error_is_that_of_the_module_with_this_weight_rounded(trained, table):
    net, x, _ = trained
    rounded = attar.quantize(
        net, x, bits=2, keep=("first", "second"), examples=128, tolerance=None, scales="absmax"
    ).module
    with torch.no_grad():
        want, got = net(x[:128]), rounded(x[:128])
    error = ((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum()
    assert table.layers[2].at(2).error == pytest.approx(float(error), rel=1e-3)


def test_bytes_are_those_of_the_tensors_in_a_file(trained, tmp_path, table):
    net, x, _ = trained
    attar.quantize(net, x, bits=4, examples=128, tolerance=None).save(tmp_path / "m.attar")
    artifact = open_artifact(tmp_path / "m.attar")
    sizes = {each["name"]: each["payload_bytes"] for each in inspect_artifact(artifact)["tensors"]}
    tables = sum(each["bytes"] for each in inspect_artifact(artifact)["tables"])
    told = sum(layer.at(4).bytes for layer in table.layers)
    assert told == pytest.approx(sum(sizes[layer.name] for layer in table.layers) + tables, rel=0.03)


def test_coded_bytes_of_nothing_and_of_codes(trained):
    assert coded_bytes({}) == {}
    net, x, _ = trained
    tensors = attar.quantize(net, x, bits=4, tolerance=None).compressed.tensors
    sizes = coded_bytes({name: tensor for name, tensor in tensors.items() if name.endswith("weight")})
    assert 0.3 * 8 * 8 * 9 / 2 < sizes["second.weight"] < 1.2 * 8 * 8 * 9 / 2 + 20


def test_sparsity(trained):
    net, x, _ = trained
    table = attar.sensitivity(net, x, what="sparsity", levels=(0.5, 0.9), examples=64)
    assert all(layer.at(0.5).error < layer.at(0.9).error for layer in table.layers)
    assert all(layer.at(0.5).bytes > layer.at(0.9).bytes for layer in table.layers)


def test_tied_recurrent_and_embedded_weights():
    torch.manual_seed(0)
    ids = torch.randint(20, (64, 7))
    table = attar.sensitivity(TiedText(), ids, levels=(2, 8), examples=32)
    assert {layer.name: layer.role for layer in table.layers} == {
        "gru.weight_ih_l0": "recurrent",
        "gru.weight_hh_l0": "recurrent",
        "out.weight": "product",
    }
    assert all(layer.at(2).error > layer.at(8).error > 0 for layer in table.layers)


def test_a_measurement_that_was_killed_goes_on_with_the_same_bytes(trained, tmp_path, monkeypatch):
    net, x, y = trained
    options = {"labels": y, "levels": (2, 8), "examples": 64}
    attar.sensitivity(net, x, folder=tmp_path / "whole", **options)
    add, seen = SensitivityFolder.add, []

    def killed(self, layer):
        add(self, layer)
        seen.append(layer.name)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SensitivityFolder, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        attar.sensitivity(net, x, folder=tmp_path / "parts", **options)
    monkeypatch.setattr(SensitivityFolder, "add", lambda self, layer: (add(self, layer), seen.append(layer.name)))
    attar.sensitivity(net, x, folder=tmp_path / "parts", **options)
    assert seen == ["first.weight", "second.weight", "head.weight"]
    whole, parts = (sorted((tmp_path / each).iterdir()) for each in ("whole", "parts"))
    assert [each.name for each in whole] == [
        "journal.jsonl",
        "sensitivity.csv",
        "sensitivity.html",
        "sensitivity.json",
    ]
    assert [each.read_bytes() for each in whole] == [each.read_bytes() for each in parts]
    assert SensitivityTable.read(tmp_path / "whole").levels == (2, 8)
    with pytest.raises(SpecError, match="another data and examples"):
        attar.sensitivity(net, x, folder=tmp_path / "whole", labels=y, levels=(2, 8), examples=32)


def test_options_that_do_not_fit(trained, tmp_path):
    net, x, _ = trained
    with pytest.raises(SpecError, match="whole numbers from 2 to 8"):
        attar.sensitivity(net, x, levels=(1, 4))
    with pytest.raises(SpecError, match="between 0 and 1"):
        attar.sensitivity(net, x, what="sparsity", levels=(50,))
    with pytest.raises(SpecError, match="write bits, sparsity or channels"):
        attar.sensitivity(net, x, what="ranks")
    # Guards against options of rounding that are taken and do nothing.
    for name, value in (("granularity", "group:8"), ("scales", "mse"), ("symmetric", False), ("correct_bias", False)):
        for what in ("sparsity", "channels"):
            with pytest.raises(SpecError, match=f"{name}: .* nothing is rounded"):
                attar.sensitivity(net, x, what=what, **{name: value})
    with pytest.raises(AttarError, match="attar sensitivity"):
        SensitivityTable.read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"format": 2}')
    with pytest.raises(AttarError, match=r"bad.json.format"):
        SensitivityTable.read(tmp_path / "bad.json")


def test_a_changed_run_computes_what_the_whole_program_does(trained):
    net, x, _ = trained
    program = copy_graph(trace(net, (x[:4],)).graph)
    first = ChangedRuns(program, (x[:4],), ["first.weight"])
    last = ChangedRuns(program, (x[:4],), ["head.weight"], first.known)
    set_tensor(program, "head.weight", torch.ones(4, 8))
    with torch.no_grad():
        assert torch.equal(last.outputs(), program(x[:4]))
    assert last.nbytes == 4 * 4 * 8
    assert first.nbytes == 0


def test_outputs_of_a_changed_layer_are_those_that_read_it_first(trained):
    net, x, _ = trained
    program = copy_graph(trace(net, (x[:4],)).graph)
    (value,) = ChangedRuns(program, (x[:4],), ["first.weight", "first.bias"]).layer_outputs()
    with torch.no_grad():
        assert torch.allclose(value, net.norm1(net.first(x[:4])), atol=1e-5)
    ids = torch.arange(12).reshape(2, 6)
    tied = TiedText().eval()
    text = copy_graph(trace(tied, (ids,)).graph)
    embedded, logits = ChangedRuns(text, (ids,), ["table.weight", "out.weight"]).layer_outputs()
    with torch.no_grad():
        assert torch.equal(embedded, tied.table(ids))
        assert torch.allclose(logits, tied(ids), atol=1e-6)
    assert ChangedRuns(text, (ids,), ["no.such"]).layer_outputs() == []


def test_errors_that_did_not_run_lie_between_those_that_did():
    own = {Level(bits): 10.0 ** (1 - bits) for bits in range(1, 9)} | {Level(16): 0.0}
    run = anchors(own)
    assert len(run) == ANCHORS
    assert {Level(16), Level(1)} <= {*run}
    seen = {level: OutputError(30 * own[level]) for level in run}
    found = between(seen, own)
    assert {*found} == {*own} - {*run}
    for level, each in found.items():
        if level.value < 8:  # the one beside a level without error lies between it and nothing
            assert each.error == pytest.approx(30 * own[level], rel=1e-9)
            assert each.signal_to_noise_db == pytest.approx(-10 * math.log10(30 * own[level]))
    exact = between(
        {Level(2): OutputError(0.1), Level(8): OutputError(0.0)}, {Level(2): 1.0, Level(4): 0.0, Level(8): 0.0}
    )
    assert exact == {Level(4): OutputError(0.0, None)}


def test_errors_that_tell_nothing_are_not_read():
    """Guards against estimates from a layer that no example reaches, or whose outputs are no numbers."""
    assert tells_apart({Level(2): 0.1, Level(8): 0.0})
    for own in ({}, {Level(2): 0.0, Level(8): 0.0}, {Level(2): math.nan, Level(8): 0.1}, {Level(2): math.inf}):
        assert not tells_apart(own)


def test_divergence_of_scores_and_of_probabilities():
    rng = np.random.default_rng(0)
    want, got = rng.normal(size=(2, 5, 3)).astype(np.float32)
    shares = [np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (got, want)]
    by_scores, by_shares = divergence(got, want, 1), divergence(*shares, 1, shares=True)
    assert np.allclose(by_scores, by_shares, atol=1e-6)
    assert (by_scores > 0).all()
