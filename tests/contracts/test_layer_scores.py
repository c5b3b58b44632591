"""What every registered score of layers must do, and what a choice of layers keeps to.

Guards against layers that are found where none can be skipped, modules that compute something else than the network
which skips, runs that differ, and networks that lose their last layer.
"""

import copy
import pickle

import pytest
import torch
from tests.methods.toys import data
from torch import nn

from attar._src.core.errors import DataError, ModelError, SpecError, UnknownName
from attar._src.core.spec import build_spec
from attar._src.methods.prune.layers.pruning import LayerPruning, prune_layers
from attar._src.methods.prune.layers.runs import LayerRuns
from attar._src.methods.prune.layers.scores import LAYER_SCORES
from attar._src.model.blocks.find import find_residual_layers
from attar._src.model.blocks.remove import skipping
from attar._src.model.capture import capture
from attar._src.train.batch import Batch

SCORES = {name: LAYER_SCORES[name] for name in LAYER_SCORES}


class Block(nn.Module):
    """``x + f(x)``, or a projection where sizes differ."""

    def __init__(self, inputs, outputs, gain=1.0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.project = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, x):
        return torch.relu(self.project(x) + self.norm(self.conv(x)))


class Net(nn.Module):
    """Two stages; blocks of gain 0.01 hardly change anything."""

    def __init__(self, gains=(1.0, 0.01, 1.0, 0.02)):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3)
        self.first = nn.Sequential(*(Block(6, 6, gain) for gain in gains[:2]))
        self.second = nn.ModuleList([Block(6, 8), *(Block(8, 8, gain) for gain in gains[2:])])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(self.stem(x))
        for block in self.second:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Indexed(Net):
    """Code that counts its blocks."""

    def forward(self, x):
        x = self.first(self.stem(x))
        for at in range(3):
            x = self.second[at](x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(0)
    module = Net().eval()
    x, _ = data(32)
    with torch.no_grad():
        module.head.weight *= 10
        module.head.bias -= module(x).mean(0)
        # Trained, as far as the loss can tell.
        y = module(x).argmax(1)
    return module, capture(module, (x[:2],), train=False), [Batch((x[:16],), y[:16]), Batch((x[16:],), y[16:])]


def shorter(given, **fields):
    module, captured, batches = given
    return prune_layers(module, captured, build_spec(LayerPruning, where="", **fields), lambda: batches)


def computes_what_skips(module, result, x, removed):
    layers = {
        each.path: each.passage for each in find_residual_layers(module, capture(module, (x,), train=False)).layers
    }
    with torch.no_grad(), skipping(module, {path: layers[path] for path in removed}):
        wanted = module.eval()(x)
    with torch.no_grad():
        given = result.module.eval()(x)
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_blocks_that_return_what_they_read_are_found(given):
    module, captured, _ = given
    found = find_residual_layers(module, captured)
    assert [each.path for each in found.layers] == ["first.0", "first.1", "second.1", "second.2"]
    height, width = captured.example[0].shape[2] - 2, captured.example[0].shape[3] - 2
    assert found.excluded == {"second.0": f"it reads (2, 6, {height}, {width}) and returns (2, 8, {height}, {width})"}


@pytest.mark.parametrize("name", SCORES)
def test_a_removal_computes_what_skips_and_runs_agree(given, name):
    module = given[0]
    before = copy.deepcopy(module.state_dict())
    one, other = (shorter(given, layers=2, score=name) for _ in range(2))
    assert one.record == other.record
    assert one.scores == other.scores
    assert len(one.removed) == 2
    assert one.figures["layers"] == [4, 2]
    assert sum(len(each) for each in (one.module.first, one.module.second)) == 3
    assert not any(isinstance(each, nn.Identity) and path.count(".") == 1 for path, each in one.module.named_modules())
    computes_what_skips(module, one, given[1].example[0], one.removed)
    assert all(torch.equal(each, before[key]) for key, each in module.state_dict().items())
    assert pickle.dumps(one.module)


@pytest.mark.parametrize("name", [name for name in SCORES if name != "random"])
def test_what_does_least_is_removed_first(given, name):
    assert set(shorter(given, layers=2, score=name).removed) == {"first.1", "second.2"}


def test_scores_by_hand(given):
    module, captured, batches = given
    layers = find_residual_layers(module, captured).layers
    runs = LayerRuns(module, captured.names, layers, batches)
    seen = {}
    handle = module.first[0].register_forward_hook(lambda _, args, output: seen.update(x=args[0], y=output))
    x = torch.cat([each.inputs[0] for each in batches])
    y = torch.cat([each.targets for each in batches])
    with torch.no_grad():
        whole = module(x)
    handle.remove()
    cosine = torch.stack([nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
                          for a, b in zip(seen["x"], seen["y"], strict=True)])  # fmt: skip
    assert SCORES["similarity"].score(runs)["first.0"] == pytest.approx(float(1 - cosine.mean()), rel=1e-4)
    with torch.no_grad():
        without = module.head(_tail(module, module.first[1](module.stem(x))))
    assert SCORES["output"].score(runs)["first.0"] == pytest.approx(
        float((whole - without).square().sum() / whole.square().sum()), rel=1e-4
    )
    assert SCORES["loss"].score(runs)["first.0"] == pytest.approx(
        float(nn.functional.cross_entropy(without, y)), rel=1e-4
    )
    # In first order: a small step towards the input changes the loss of each example by so much.
    double = copy.deepcopy(module).double()
    runs = LayerRuns(double, captured.names, layers, [Batch((x.double(),), y)])
    with torch.no_grad():
        stem = double.stem(x.double())
        read, step = double.first[0](stem), 1e-7
        moved = double.head(_tail(double, double.first[1](read + step * (stem - read))))
        losses = [nn.functional.cross_entropy(each, y, reduction="none") for each in (moved, double(x.double()))]
    wanted = float((losses[0] - losses[1]).abs().mean() / step)
    assert SCORES["taylor"].score(runs)["first.0"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_batches_of_other_sizes_give_the_same(given, name):
    """Guards means over batches that are taken for means over examples."""
    module, captured, (one, other) = given
    x, y = torch.cat([one.inputs[0], 9 * other.inputs[0]]), torch.cat([one.targets, other.targets])
    layers = find_residual_layers(module, captured).layers
    found = [
        SCORES[name].score(
            LayerRuns(module, captured.names, layers, [*map(Batch, [(a,) for a in x.split(size)], y.split(size))])
        )
        for size in (32, 20)
    ]
    assert found[1] == pytest.approx(dict(found[0]), rel=1e-4)


class Several(nn.Module):
    """Two outputs, each behind its own layers; the main one is zero."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Sequential(Block(2, 2), Block(2, 2)) for _ in range(2))
        self.head, self.other = nn.Linear(2, 4), nn.Linear(2, 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.first(x).mean((2, 3))), self.other(self.second(x).mean((2, 3)))


@pytest.mark.parametrize("name", SCORES)
def test_layers_that_have_no_part_in_the_score_go_first(name):
    """Guards errors of PyTorch and divisions by zero in place of a score."""
    torch.manual_seed(0)
    module, (x, y) = Several().eval(), data(8)
    result = shorter((module, capture(module, (x[:2],), train=False), [Batch((x,), y)]), layers=1, score=name)
    assert len(result.removed) == 1
    assert name != "taylor" or all(result.scores[f"second.{at}"] == 0 for at in range(2))


def _tail(module, x):
    for block in module.second:
        x = block(x)
    return x.mean((2, 3))


def test_one_layer_is_left(given):
    result = shorter(given, layers=3)
    assert len(result.module.first) == 1
    assert shorter(given, layers=0.5).figures["layers"] == [4, 2]
    with pytest.raises(SpecError, match=r"layers=4: 3 of 4 layers can be removed.* the most is layers=3"):
        shorter(given, layers=4)


def test_a_target_of_multiplications_is_reached_without_needless_layers(given):
    result = shorter(given, macs=0.2)
    before, after = result.figures["macs"]
    counted = {path: sum(each.numel() for each in given[0].get_submodule(path).conv.parameters() if each.dim() > 1)
               for path in result.scores}  # fmt: skip
    pixels = (before - after) / sum(counted[path] for path in result.removed)
    assert 1 - after / before >= 0.2
    assert all(before - after - pixels * counted[path] < 0.2 * before for path in result.removed)
    with pytest.raises(SpecError, match=r"macs=0\.95: the 3 layers that can be removed have 0\.\d+"):
        shorter(given, macs=0.95)


def test_code_that_counts_gets_something_in_the_place():
    torch.manual_seed(0)
    module = Indexed().eval()
    x, _ = data(4)
    result = prune_layers(
        module,
        capture(module, (x,), train=False),
        LayerPruning(layers=2, exclude=("first.0",)),
        lambda: [Batch((x,), None)],
    )
    assert result.excluded["first.0"] == "exclude has first.0"
    assert set(result.removed) == {"first.1", "second.2"}
    assert len(result.module.first) == 1
    assert len(result.module.second) == 3
    assert result.record["dropped"] == ["first.1"]
    computes_what_skips(module, result, x, result.removed)


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_layers(norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    module = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    x = torch.randn(4, 5, 8)
    result = prune_layers(
        module, capture(module, (x,), train=False), LayerPruning(layers=2), lambda: [Batch((x,), None)]
    )
    assert len(result.module.layers) == result.module.num_layers == 1
    computes_what_skips(module, result, x, result.removed)


class Shared(nn.Module):
    """One block, used twice; a gate; a plain layer."""

    def __init__(self):
        super().__init__()
        self.block, self.gate, self.plain = Block(2, 2), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.plain(self.block(self.block(x)) * torch.sigmoid(self.gate(x)))


def test_what_cannot_be_asked_for(given):
    with pytest.raises(SpecError, match="give one of the two: layers or macs"):
        shorter(given)
    with pytest.raises(SpecError, match=r"layers"):
        shorter(given, layers=1.5)
    with pytest.raises(UnknownName, match=r"no layer named 'first\.7'; did you mean"):
        shorter(given, layers=1, exclude=("first.7",))
    with pytest.raises(SpecError, match="no layer score named 'similar'; did you mean 'similarity'"):
        shorter(given, layers=1, score="similar")
    module, captured, batches = given
    unlabelled = [Batch(each.inputs, None) for each in batches]
    for score in ("loss", "taylor"):
        with pytest.raises(DataError, match="needs labels; use similarity or output without"):
            prune_layers(module, captured, LayerPruning(layers=1, score=score), lambda: unlabelled)
    shared = Shared().eval()
    x, _ = data(2)
    with pytest.raises(ModelError, match=r"no layer of Shared can be removed: .*; remove channels instead"):
        prune_layers(shared, capture(shared, (x,), train=False), LayerPruning(layers=1), lambda: [Batch((x,), None)])
    one = nn.Sequential(nn.Conv2d(2, 6, 3), Block(6, 6)).eval()
    with pytest.raises(ModelError, match="of 1 that could be, one remains"):
        prune_layers(one, capture(one, (x,), train=False), LayerPruning(layers=1), lambda: [Batch((x,), None)])
