"""Random small networks of residual additions, concatenations, splits, groups and recurrent parts.

Guards against combinations of joints that no network of ``networks.py`` has: each is pruned, and compared with itself
with the same channels set to zero.
"""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.dependencies.test_removal import pruned
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """One of several joints over ``channels`` channels, a multiple of 4."""

    KINDS = ("plain", "residual", "concat", "gate", "depthwise", "grouped", "padded", "excite", "shuffle", "stack")

    def __init__(self, kind, inputs, draw):
        super().__init__()
        self.kind, self.outputs = kind, inputs
        wide = 4 * draw.randint(1, 3)
        self.norm = nn.BatchNorm2d(inputs)
        self.a = nn.Conv2d(inputs, inputs, 3, padding=1)
        match kind:
            case "plain" | "stack":
                self.outputs = wide if kind == "plain" else 2 * inputs
                self.a = nn.Conv2d(inputs, wide if kind == "plain" else inputs, 3, padding=1)
            case "concat":
                self.a, self.outputs = nn.Conv2d(inputs, wide, 3, padding=1), inputs + wide
            case "gate":
                self.a = nn.Conv2d(inputs, 2 * inputs, 3, padding=1)
            case "depthwise":
                self.a = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
            case "grouped":
                self.a = nn.Conv2d(inputs, inputs, 3, padding=1, groups=draw.choice([2, 4]))
            case "padded":
                self.outputs, self.more = inputs + 4, 2
                self.a = nn.Conv2d(inputs, inputs + 4, 3, padding=1)
            case "excite":
                self.b, self.c = nn.Conv2d(inputs, 4, 1), nn.Conv2d(4, inputs, 1)

    def forward(self, x):
        x = F.relu(self.norm(x))
        match self.kind:
            case "residual":
                return x + self.a(x)
            case "concat":
                return torch.cat([self.a(x), x], 1)
            case "gate":
                one, other = self.a(x).chunk(2, 1)
                return one * other.sigmoid()
            case "padded":
                return self.a(x) + F.pad(x, (0, 0, 0, 0, self.more, self.more))
            case "excite":
                return self.a(x) * torch.sigmoid(self.c(F.relu(self.b(x.mean((2, 3), keepdim=True)))))
            case "shuffle":
                return F.channel_shuffle(self.a(x), 2)
            case "stack":
                return torch.stack([self.a(x), x], 2).flatten(1, 2)
            case _:
                return self.a(x)


class Random(nn.Module):
    """A stem, some joints, and a head that flattens, averages or recurs over the columns."""

    def __init__(self, kinds, head, seed):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.stem, channels, blocks = nn.Conv2d(3, 8, 3, padding=1), 8, []
        for kind in kinds:
            blocks.append(Block(kind, channels, draw))
            channels = blocks[-1].outputs
        self.blocks, self.head = nn.Sequential(*blocks), head
        if head in ("lstm", "gru"):
            self.recurrent = (nn.LSTM if head == "lstm" else nn.GRU)(channels, 6, batch_first=True)
        self.last = nn.Linear({"mean": channels, "flat": 16 * channels}.get(head, 6), 5)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        if self.head in ("lstm", "gru"):
            return self.last(self.recurrent(x.mean(2).transpose(1, 2))[0])
        return self.last(x.mean((2, 3)) if self.head == "mean" else x.flatten(1))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(Block.KINDS), min_size=1, max_size=4),
    st.sampled_from(["mean", "flat", "lstm", "gru"]),
    st.integers(0, 99),
)
def test_a_random_network_computes_what_the_masked_one_does(kinds, head, seed):
    module = Random(kinds, head, seed).eval()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_()
    _, removable, units, difference = pruned(module, torch.randn(2, 3, 4, 4), 0.4)
    assert difference < 1e-5
    assert units
    # What stays is listed: every weight is either in a group or has a reason.
    weights = {name for group in removable.found.groups for name in group.weights} | set(removable.found.excluded)
    assert weights >= {f"{name}.weight" for name, each in module.named_modules() if isinstance(each, nn.Conv2d)}


@pytest.mark.parametrize("kind", Block.KINDS)
def test_every_joint_has_something_to_remove(kind):
    module = Random([kind], "mean", 1).eval()
    _, removable, units, difference = pruned(module, torch.randn(2, 3, 4, 4), 0.4)
    assert units
    assert difference < 1e-5
    assert not any("does not follow" in why or "something else" in why for why in removable.found.excluded.values())
