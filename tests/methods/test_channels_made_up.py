"""Weights that remain make up for removed channels.

Guards the whole kind of a structure that is removed and whose readers go on as if it were there.
"""

import copy
from dataclasses import replace

import pytest
import torch
from tests.model.dependencies.test_random_networks import Block, Random
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import attar
from attar._src.core.errors import DataError, SpecError
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.elimination import eliminate
from attar._src.methods.prune.channels.making_up import make_up
from attar._src.methods.prune.channels.pruning import prune_module, rank_channels
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.weights import walk
from attar._src.model.capture import capture
from attar._src.work.calibration_inputs import CalibrationInputs


def pruned(module, x, *, captured=None, **fields):
    captured = captured or capture(module, (x[:2],), train=False)
    judged = JudgedChannels(CalibrationInputs(tuple((each,) for each in x.split(16))))
    return prune_module(module, captured, ChannelPruning(**fields), dict, judged=judged)


def error(module, smaller, x):
    with torch.no_grad():
        want, got = module.eval()(x), smaller.eval()(x)
    return float((got - want).square().sum() / (want - want.mean(0)).square().sum())


def test_the_values_are_those_of_least_squares():
    """Guards the solution itself, and the shift of the bias, against the closed form of a layer of two."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(512, 6)
    smaller = pruned(module, x, channels=0.5).module
    assert smaller[2].in_features == 4
    with torch.no_grad():
        # Which channels are left is told by the rows of the first layer, which stay as they are.
        left = [int((module[0].weight == row).all(1).nonzero()) for row in smaller[0].weight]
        h = module[:2](x).double()
        weight = torch.linalg.lstsq(h[:, left], h @ module[2].weight.double().T).solution.T
        shift = (h @ module[2].weight.double().T - h[:, left] @ weight.T).mean(0)
    # The Hessian is damped by a hundredth of its mean.
    torch.testing.assert_close(smaller[2].weight.double(), weight, rtol=0.1, atol=0.02)
    torch.testing.assert_close(smaller[2].bias.double(), module[2].bias.double() + shift, rtol=0.1, atol=0.05)


class Doubled(nn.Module):
    """Every channel has a twin, through additions, a norm and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.branch, self.lstm, self.head = (
            nn.Conv2d(8, 8, 3, padding=1),
            nn.GRU(8, 6, batch_first=True),
            nn.Linear(6, 3),
        )
        with torch.no_grad():
            for each in (self.stem.weight, self.stem.bias, self.branch.weight, self.branch.bias):
                each[4:] = each[:4]

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.branch(x)).relu()
        return self.head(self.lstm(x.mean(2).transpose(1, 2))[0])


def test_channels_that_others_tell_cost_nothing():
    """Guards additions of values of which both sides lost channels, folded batch-norms, and recurrent layers."""
    torch.manual_seed(0)
    module, x = Doubled().eval(), torch.randn(64, 2, 8, 8)
    captured = capture(module, (x[:2],), train=False)
    found = rank_channels(
        module,
        captured,
        ChannelPruning(channels=0.5, exclude=("lstm",)),
        dict,
        judged=JudgedChannels(CalibrationInputs(((x,),))),
    )
    (group,) = found.removable.found.groups
    one_of_each = replace(found, scores={unit: float(place >= 4) for place, unit in enumerate(group.units)})
    plain, made = (one_of_each.without(ChannelPruning(channels=0.5, update=each)) for each in ("none", "obs"))
    assert made.module.lstm.input_size == 4
    assert error(module, plain.module, x) > 0.05
    # The Hessian is damped by a hundredth of its mean.
    assert error(module, made.module, x) < 0.005
    assert not made.remarks


@pytest.mark.parametrize("head", ["flat", "mean", "lstm", "gru"])
def test_random_networks_lose_less(head):
    """Guards joints: additions, concatenations, gates, depthwise and grouped convolutions, pads, shuffles."""
    ratios = []
    for seed, kind in enumerate(Block.KINDS):
        module, x = Random([kind, "residual", kind], head, seed).eval(), torch.randn(48, 3, 4, 4)
        before = copy.deepcopy(module.state_dict())
        captured = capture(module, (x[:2],), train=False)
        found = [pruned(module, x, captured=captured, channels=0.3, update=each) for each in ("none", "obs")]
        plain, made = (error(module, each.module, x) for each in found)
        assert [each.shape for each in found[0].module.parameters()] == [
            each.shape for each in found[1].module.parameters()
        ]
        assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
        ratios.append(made / plain if plain > 1e-9 else 1.0)
    assert max(ratios) < 1.1
    assert torch.tensor(ratios).log().mean().exp() < 0.5


def test_what_cannot_make_up_is_told():
    """Guards layers that are left out without a word: by their operator, a parametrization, or their size."""
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8, 8)
    up = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 2, 3), nn.Conv2d(2, 2, 3))
    assert "weights that make up for nothing: '2.weight' (" in pruned(up, x, channels=0.5).remarks
    parts = nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), weight_norm(nn.Conv2d(4, 2, 3))
    normed = nn.Sequential(*parts)
    assert "'4.weight' (the module computes it from other parameters" in pruned(normed, x, channels=0.5).remarks


def test_a_matrix_that_takes_too_much_memory_is_not_made(monkeypatch):
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 6)
    monkeypatch.setattr(walk, "_MATRIX_BYTES", 8 * 8 * 8 - 1)
    made = pruned(module, x, channels=0.5)
    assert "'2.weight' (a matrix of its 8 inputs takes 0.0 GB)" in made.remarks
    assert error(module, made.module, x) == error(module, pruned(module, x, channels=0.5, update="none").module, x)


def test_nothing_removed_changes_nothing():
    torch.manual_seed(0)
    module, x = Random(["residual"], "mean", 0).eval(), torch.randn(48, 3, 4, 4)
    captured = capture(module, (x[:2],), train=False)
    judged = JudgedChannels(CalibrationInputs(((x,),)))
    found = rank_channels(module, captured, ChannelPruning(channels=0.5), dict, judged=judged).removable.found
    made = make_up(module, captured, found, (), judged.inputs)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(made.values.get(name, parameter), parameter, rtol=1e-3, atol=1e-4)


def test_inputs_are_needed_and_updates_are_checked():
    module, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 6)
    captured = capture(module, (x[:2],), train=False)
    with pytest.raises(DataError, match="give some, or update='none'"):
        prune_module(module, captured, ChannelPruning(channels=0.5), dict)
    with pytest.raises(SpecError, match="update"):
        attar.prune(module, x, channels=0.5, update="sparsegpt")


def test_bytes_and_time_are_kept(monkeypatch):
    """Guards targets that are met by the module before its weights made up for what was removed."""
    torch.manual_seed(0)
    module, x = Doubled().eval(), torch.randn(64, 2, 8, 8)
    count = sum(each.numel() for each in module.parameters())
    most = int(0.8 * attar.prune(module, x, channels=0.1).file_bytes()[0])
    for options in ({"unit": "channel", "max_bytes": most}, {"max_ms": 0.7 * count}):
        monkeypatch.setattr(
            "attar._src.deploy.pruning.prune.milliseconds_of",
            lambda given, **_: float(sum(each.numel() for each in given.parameters())),
        )
        plain, made = (attar.prune(module, x, update=each, **options) for each in ("none", "obs"))
        assert [each.shape for each in plain.module.parameters()] == [each.shape for each in made.module.parameters()]
        assert error(module, made.module, x) < 0.7 * error(module, plain.module, x)
        if "max_bytes" in options:
            assert made.file_bytes()[1] <= options["max_bytes"]
        else:
            assert made.figures["fitted_ms"][1] <= options["max_ms"]


def test_units_are_eliminated_with_what_is_left():
    """Guards costs of units alone: of two channels that tell the same, one is free, and both are not."""
    hessian = 2 * torch.ones(2, 2, dtype=torch.float64) + 1e-6 * torch.eye(2, dtype=torch.float64)
    (first, free), (second, whole) = eliminate(torch.ones(1, 2, dtype=torch.float64), hessian, torch.tensor([5, 7]))
    assert {first, second} == {5, 7}
    assert free < 1e-5
    assert whole == pytest.approx(2 * 2**2, rel=1e-5)
    torch.manual_seed(0)
    rows, x = torch.randn(3, 6, dtype=torch.float64), torch.randn(500, 6, dtype=torch.float64)
    x[:, 4:] += x[:, :2]
    hessian, units = x.T @ x, torch.tensor([0, 0, 1, 1, -1, 2])
    order = [*eliminate(rows, hessian, units)]
    assert [unit for unit, _ in order] != [0, 1, 2]
    assert {unit for unit, _ in order} == {0, 1, 2}
    # The cost of the first is what least squares over the other columns leaves.
    unit, cost = order[0]
    left = units != unit
    want = x @ rows.T
    got = x[:, left] @ torch.linalg.lstsq(x[:, left], want).solution
    assert cost == pytest.approx(float((got - want).square().sum()), rel=1e-6)
    assert [cost for _, cost in order] == sorted(cost for _, cost in order)


def test_the_score_obs_keeps_one_of_each_pair():
    torch.manual_seed(0)
    module, x = Doubled().eval(), torch.randn(64, 2, 8, 8)
    made = pruned(module, x, channels=0.5, score="obs", exclude=("lstm",))
    assert made.module.lstm.input_size == 4
    assert error(module, made.module, x) < 0.02
    assert error(module, pruned(module, x, channels=0.5, exclude=("lstm",)).module, x) > 0.1


class Scores(nn.Module):
    """Contracts channels with each other, where removed ones must stay zero."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(5, 3)
        nn.init.constant_(self.q.bias, 2.0)
        nn.init.constant_(self.k.bias, 2.0)

    def forward(self, x):
        return self.o((self.q(x) @ self.k(x).transpose(1, 2)).relu())


def test_removed_channels_stay_gone_where_channels_are_contracted():
    """Guards later layers that are solved for values the smaller module never makes."""
    torch.manual_seed(0)
    module, x = Scores().eval(), torch.randn(64, 5, 6)
    made = pruned(module, x, channels=0.5, exclude=("o",))
    assert made.module.q.out_features == 4
    plain = pruned(module, x, channels=0.5, exclude=("o",), update="none")
    assert error(module, made.module, x) < 0.5 * error(module, plain.module, x)


def test_what_a_factor_of_zero_hides_stays():
    """Guards weights that could never be trained again, behind a norm that begins as zero."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    nn.init.zeros_(module[3].weight)
    made = pruned(module, torch.randn(32, 2, 8, 8), channels=0.5)
    assert made.module[2].weight.abs().min() > 0
