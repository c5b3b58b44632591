"""What every registered score of channels must do, and what a choice by scores keeps to.

Guards against scores that are not comparable, draws that differ from run to run, counts that are off by one, and layers
that lose their last channel.
"""

import copy

import pytest
import torch
from tests.methods.toys import data, net
from torch import nn

from attar._src.core.errors import DataError, ModelError, SpecError, UnknownName
from attar._src.core.spec import build_spec
from attar._src.measure.class_layout import FROM_SHAPES
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.gradients import part_gradients
from attar._src.methods.prune.channels.input_squares import input_squares
from attar._src.methods.prune.channels.pruning import prune_module, rank_channels
from attar._src.methods.prune.channels.ranking import score_units
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES, ScoredAxis
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.model.capture import capture
from attar._src.model.dependencies.check import find_removable
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs

SCORES = {name: CHANNEL_SCORES[name] for name in CHANNEL_SCORES}


@pytest.fixture(scope="module")
def given():
    """Networks with what a score can read, captured, and their gradients."""
    x, y = data(64)
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(2, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3), nn.BatchNorm2d(20), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 4),
    )  # fmt: skip
    for norm in (chain[1], chain[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    found = {}
    for name, module in (("residual", net()), ("chain", chain)):
        captured = capture(module, (x[:2],), train=False)
        gradients = next(iter(part_gradients(captured, [Batch((x,), y, None)], FROM_SHAPES)))
        found[name] = module, captured, gradients
    return found


def pruned(given, name="chain", seed=0, **fields):
    module, captured, gradients = given[name]
    pruning = build_spec(ChannelPruning, where="", **fields)
    judged = JudgedChannels(CalibrationInputs(((data(64)[0],),)))
    return prune_module(module, captured, pruning, lambda: [gradients], seed=seed, judged=judged)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_score_is_a_figure_for_each_channel(score):
    for shape in [(6, 4), (5, 3, 3, 3), (7,)]:
        weight, gradient = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        for axis in range(min(len(shape), 2)):
            one, other = (
                score.score(ScoredAxis(weight, gradient, axis, torch.Generator().manual_seed(3))) for _ in range(2)
            )
            assert one.shape == (shape[axis],)
            assert torch.isfinite(one).all()
            assert (score.of_units(one) >= 0).all()
            assert torch.equal(one, other)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", SCORES)
def test_the_share_is_exact_and_runs_agree(given, name, share):
    one, other = (pruned(given, channels=share, score=name, least=0.0) for _ in range(2))
    assert one.record == other.record
    for removed, count in one.groups.values():
        assert removed == round(share * count)
    assert next(iter(one.groups.values()))[1] == 12
    total = pruned(given, channels=share, score=name, scope="global", least=0.0)
    assert sum(removed for removed, _ in total.groups.values()) <= round(share * 32)


@pytest.mark.parametrize("name", SCORES)
def test_one_channel_is_left(given, name):
    for fields in ({"channels": 0.99}, {"channels": 0.99, "scope": "global"}):
        result = pruned(given, score=name, least=0.0, **fields)
        assert all(removed < count for removed, count in result.groups.values())
        x, _ = data(4)
        assert result.module(x).shape == (4, 4)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("network", ["chain", "residual"])
def test_a_target_of_multiplications_is_reached_and_not_by_far_exceeded(given, network, scope):
    result = pruned(given, network, macs=0.4, scope=scope)
    before, after = result.figures["macs"]
    assert 0.4 <= 1 - after / before < 0.6
    counted = sum(conv_macs(given[network][0], result.module))
    assert counted == after


def conv_macs(module, smaller):
    """Multiplications, counted by hooks."""
    found = []

    def hook(layer, inputs, output):
        weight = layer.weight
        found.append(output[0].numel() * weight[0].numel())

    hooked = copy.deepcopy(smaller).eval()
    for layer in hooked.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    hooked(data(2)[0])
    return found


def test_scores_remove_what_does_least(given):
    module, captured, gradients = given["chain"]
    weak = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (weak[0].weight, weak[1].weight):
            tensor[3:7] *= 1e-3
        weak[3].weight[:, 3:7] *= 1e-3
    captured = capture(weak, captured.example, train=False)
    x, y = data(64)
    gradients = next(iter(part_gradients(captured, [Batch((x,), y, None)], FROM_SHAPES)))
    for name in [*SCORES][:-1]:
        fields = ChannelPruning(channels=4 / 12, score=name, least=0.0)
        judged = JudgedChannels(CalibrationInputs(((x,),)))
        smaller = prune_module(weak, captured, fields, lambda: [gradients], judged=judged).module
        kept = torch.cat([weak[1].weight[:3], weak[1].weight[7:]])
        assert torch.equal(smaller[1].weight, kept), name


def test_what_remains_is_a_multiple(given):
    for fields in ({"channels": 0.5}, {"macs": 0.5}):
        result = pruned(given, round_to=4, **fields)
        assert all(after % 4 == 0 for _, after in result.widths.values())
        assert any(removed for removed, _ in result.groups.values())


class Padded(nn.Module):
    """Layers of 16, 32 and 64 channels, joined by shortcuts that pad zeros on both sides, as the public ResNet-20."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 16, 3), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 64, 1)
        self.head, self.more = nn.Linear(64, 4), (8, 16)
        with torch.no_grad():
            self.a.weight *= 0.1  # The channels that all of them have score lowest.

    def forward(self, x):
        x = self.a(x)
        for layer, more in zip((self.b, self.c), self.more, strict=True):
            x = layer(x).relu() + nn.functional.pad(x, (0, 0, 0, 0, more, more))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5, 0.6, 0.7])
def test_a_target_is_met_closely_where_some_channels_save_much(share):
    """Guards against many channels that go for nothing because the last one is of a residual stream."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1)) for _ in "ab"]

    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks, self.head = nn.Conv2d(2, 4, 3), nn.ModuleList(blocks), nn.Linear(4, 4)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            return self.head(x.mean((2, 3)))

    module = Stream()
    captured = capture(module, (torch.randn(2, 2, 8, 8),), train=False)
    before, after = prune_module(module, captured, ChannelPruning(macs=share, update="none"), dict).figures["macs"]
    # A channel of a block has 1/64 of the multiplications, one of the stream a quarter.
    assert share <= 1 - after / before < share + 0.02


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({"channels": 0.5}, (8, 16, 32)),
        ({"channels": 0.75, "least": 0.0}, (4, 8, 16)),
        ({"channels": 0.6, "round_to": 8}, (8, 16, 32)),
        ({"channels": 0.9, "least": 0.25}, (4, 8, 16)),
        ({"channels": 0.5, "scope": "global", "least": 0.25}, None),
        ({"macs": 0.5, "round_to": 4}, None),
    ],
)
def test_every_layer_of_a_group_joined_by_pads_keeps_its_share(fields, widths):
    torch.manual_seed(0)
    module = Padded()
    captured = capture(module, (torch.randn(2, 2, 6, 6),), train=False)
    result = prune_module(module, captured, ChannelPruning(update="none", **fields), dict)
    smaller = result.module
    assert [*result.groups] == ["a.weight"]
    own = (smaller.a.out_channels, smaller.b.out_channels, smaller.c.out_channels)
    assert result.widths == {f"{name}.weight": (16 << at, own[at]) for at, name in enumerate("abc")}
    for width, whole in zip(own, (16, 32, 64), strict=True):
        assert width % fields.get("round_to", 1) == 0
        assert width >= fields.get("least", 0.1) * whole
    assert own == widths or widths is None


class Branches(nn.Module):
    """Code that follows one channel less, but not many."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 64), nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.a(x).relu()
        return self.c(self.b(x * 2 if x.shape[1] < 48 else x).relu())


def test_what_is_removed_in_the_end_is_tried():
    torch.manual_seed(0)
    module = Branches()
    captured = capture(module, (torch.randn(4, 8),), train=False)
    result = prune_module(module, captured, ChannelPruning(channels=0.5, update="none"), dict)
    assert result.widths == {"b.weight": (16, 8)}
    assert result.excluded["a.weight"].startswith("without 32 of its 64 units, its code computes something else")
    few = prune_module(module, captured, ChannelPruning(channels=0.2, update="none"), dict)
    assert few.widths == {"a.weight": (64, 51), "b.weight": (16, 13)}
    with pytest.raises(ModelError, match=r"a\.weight: without 32 of its 64 units"):
        prune_module(module, captured, ChannelPruning(channels=0.5, update="none", exclude=("b",)), dict)


class Together(Branches):
    """Code that follows a removal from either layer, but not from both."""

    def forward(self, x):
        x = self.a(x).relu()
        y = self.b(x).relu()
        return self.c(y * 2 if x.shape[1] < 48 and y.shape[1] < 12 else y)


def test_groups_that_cannot_be_removed_together_are_named():
    torch.manual_seed(0)
    module = Together()
    captured = capture(module, (torch.randn(4, 8),), train=False)
    with pytest.raises(ModelError, match=r"chosen units of a\.weight, b\.weight together: its code computes something"):
        prune_module(module, captured, ChannelPruning(channels=0.5, update="none"), dict)


def test_what_is_excluded_stays(given):
    result = pruned(given, channels=0.5, exclude=("3",))
    assert [*result.groups] == ["0.weight"]
    assert result.excluded["3.weight"] == "exclude has 3"
    with pytest.raises(UnknownName, match=r"'33'; did you mean '3'"):
        pruned(given, channels=0.5, exclude=("33",))


def test_what_cannot_be_asked_for(given):
    with pytest.raises(SpecError, match="give one of the three: channels, macs or max_bytes"):
        pruned(given, channels=0.5, macs=0.5)
    with pytest.raises(SpecError, match="give one of the three: channels, macs or max_bytes"):
        pruned(given)
    with pytest.raises(
        SpecError, match=r"macs=0\.9: without all that can be removed 0\.\d+ of it are left, and 0\.100 were asked for"
    ):
        pruned(given, macs=0.9, least=0.5)
    with pytest.raises(SpecError, match="no channel score named 'tailor'; did you mean 'taylor'"):
        pruned(given, channels=0.5, score="tailor")
    with pytest.raises(ModelError, match=r"no channel of Sequential can be removed: .*0\.weight: exclude has \*"):
        pruned(given, channels=0.5, exclude=("*",))


class PartlyNormed(nn.Module):
    """A norm behind some of the channels of a group alone, and a layer without any."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Conv2d(2, 8, 3)
        self.norm, self.d, self.head = nn.BatchNorm2d(4), nn.Conv2d(8, 8, 3), nn.Linear(128, 4)
        self.first, self.first_norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.first_norm(self.first(x))
        return self.head(self.d(torch.cat([self.norm(self.a(x)), self.b(x)], 1) + self.c(x)).flatten(1))


def test_groups_without_norms_stay_where_norms_are_scored():
    module = PartlyNormed()
    captured = capture(module, (torch.randn(2, 2, 8, 8),), train=False)
    result = prune_module(module, captured, ChannelPruning(channels=0.5, update="none", score="batch_norm"), dict)
    assert result.groups == {"first.weight": (1, 2)}
    for name in ("a", "b", "c", "d"):
        assert result.excluded[f"{name}.weight"] == "the score batch_norm does not judge all of it"


def test_taylor_is_the_root_mean_square_over_parts():
    """Guards means, which are about zero of a trained network: what parts of the examples need would count nothing."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    captured = capture(module, (torch.randn(2, 3),), train=False)
    found = find_removable(module, captured).found
    (group,) = found.groups
    parts = [
        {name: torch.randn(each.shape, generator=torch.Generator().manual_seed(seed)) for name, each in
         module.named_parameters()}
        for seed in range(3)
    ]  # fmt: skip
    scores = score_units(module, found, CHANNEL_SCORES["taylor"], parts, {}, 0)
    # What reads the units counts.
    changes = torch.stack([(module[2].weight.detach() * part["2.weight"]).sum(0) for part in parts])
    got = torch.tensor([scores[unit] for unit in group.units])
    wanted = changes.square().mean(0).sqrt()
    torch.testing.assert_close(got, wanted / wanted.mean(), rtol=1e-4, atol=1e-5)
    cancelled = [parts[0], {name: -each for name, each in parts[0].items()}]
    alone = score_units(module, found, CHANNEL_SCORES["taylor"], parts[:1], {}, 0)
    assert score_units(module, found, CHANNEL_SCORES["taylor"], cancelled, {}, 0) == pytest.approx(alone)


class Split(nn.Module):
    """A value that two layers read."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        y = self.first(x).relu()
        return self.left(y) + self.right(y)


def test_taylor_adds_up_what_all_readers_lose():
    torch.manual_seed(0)
    module, x = Split().eval(), torch.randn(8, 3)
    found = find_removable(module, capture(module, (x[:2],), train=False)).found
    module(x).square().mean().backward()
    part = {name: each.grad for name, each in module.named_parameters()}
    scores = score_units(module, found, CHANNEL_SCORES["taylor"], [part], {}, 0)
    (group,) = found.groups
    wanted = sum((getattr(module, each).weight * part[f"{each}.weight"]).sum(0) for each in ("left", "right"))
    got, wanted = torch.tensor([scores[unit] for unit in group.units]), wanted.detach().abs()
    torch.testing.assert_close(got, wanted / wanted.mean(), rtol=1e-4, atol=1e-5)


class Read(nn.Module):
    """A grouped convolution, a linear layer, an LSTM and a table."""

    def __init__(self):
        super().__init__()
        self.table, self.lstm = nn.Embedding(10, 6), nn.LSTM(6, 5, batch_first=True)
        self.conv, self.head = nn.Conv1d(6, 4, 3, groups=2), nn.Linear(5, 2)

    def forward(self, ids):
        embedded = self.table(ids)
        return self.head(self.lstm(embedded)[0]).mean(1), self.conv(embedded.mT)


def test_squares_are_of_what_each_element_multiplies():
    torch.manual_seed(0)
    module, ids = Read().eval(), torch.randint(10, (16, 7))
    captured = capture(module, (ids[:2],), train=False)
    found = input_squares(captured, CalibrationInputs(((ids,),)))
    assert found.keys() == {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "conv.weight", "head.weight"}
    with torch.no_grad():
        embedded = module.table(ids)
        states = module.lstm(embedded)[0]
    squares = embedded.square().mean((0, 1))
    torch.testing.assert_close(found["lstm.weight_ih_l0"], squares.expand(20, 6))
    torch.testing.assert_close(found["head.weight"], states.square().mean((0, 1)).expand(2, 5))
    for row in range(4):
        own = squares[:3] if row < 2 else squares[3:]
        torch.testing.assert_close(found["conv.weight"][row], own[:, None].expand(3, 3))


def test_wanda_sees_silent_channels():
    """Guards scores by size alone: a channel that is always zero is large."""
    module, x = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval(), torch.rand(64, 3)
    with torch.no_grad():
        module[0].weight[2:4] = -9.0
        module[0].bias[2:4] = 0
    captured = capture(module, (x[:2],), train=False)
    judged = JudgedChannels(CalibrationInputs(((x,),)))
    units = {}
    for name in ("wanda", "l2"):
        ranked = rank_channels(module, captured, ChannelPruning(channels=0.5, score=name), dict, judged=judged)
        ordered = sorted(ranked.scores, key=ranked.scores.__getitem__)
        units[name] = {ranked.removable.found.groups[0].units.index(each) for each in ordered[-2:]}
    assert units["l2"] == {2, 3}
    assert units["wanda"] != {2, 3}
    with pytest.raises(DataError, match="the score wanda sees what weights multiply; give inputs"):
        rank_channels(module, captured, ChannelPruning(channels=0.5, score="wanda"), dict)
