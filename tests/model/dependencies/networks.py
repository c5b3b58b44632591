"""Networks that join, divide, pad and repeat channels, with what can be removed from each."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

IMAGE, SEQUENCE, WORDS = (2, 3, 12, 12), (2, 7, 10), (2, 7)


class Net(nn.Module):
    """Submodules and parameters by name, and a function of them and the input."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class Averages(nn.Module):
    """Divides by the number of channels, which changes with what is removed."""

    def forward(self, x):
        return x / x.shape[1]


class Scales(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Pads(nn.Module):
    """Zeros as new channels on both sides; their number is in no attribute."""

    def __init__(self, more):
        super().__init__()
        self.pads = lambda x: F.pad(x, (0, 0, 0, 0, more, more))

    def forward(self, x):
        return self.pads(x)


class Attention(nn.Module):
    """Self-attention, its heads cut in one of several ways that people write."""

    def __init__(self, how, width=24, heads=4):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.how, self.heads, self.size = how, heads, width // heads
        self.scale = self.size**-0.5
        if how == "rotary, a buffer":
            self.register_buffer("frequencies", 10.0 ** -torch.arange(self.size // 2))

    def forward(self, x):
        b, t, _ = x.shape
        if self.how in ("divided", "the rest"):
            size, width = (x.shape[-1] // self.heads, x.shape[-1]) if self.how == "divided" else (-1, -1)
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
            y = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
            return self.out(y.transpose(1, 2).reshape(b, t, width))
        if self.how == "unbind":
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
            return self.out(y.transpose(1, 2).reshape(b, t, self.heads * self.size))
        q, k, v = (each.view(b, t, -1, self.size).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        if self.how == "rotary":
            angles = torch.arange(t)[:, None] / 10.0 ** torch.arange(self.size // 2).repeat(2)
            q, k = (each * angles.cos() + _turned(each) * angles.sin() for each in (q, k))
        if self.how == "rotary, a buffer":
            angles = (self.frequencies[:, None] @ torch.arange(t).float()[None]).t()
            cos, sin = (torch.cat([each, each], -1) for each in (angles.cos(), angles.sin()))
            q, k = (each * cos + _turned(each) * sin for each in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.how == "causal")
        return self.out(y.transpose(1, 2).flatten(2))


def _turned(x):
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


class Recurs(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, kind, **options):
        super().__init__()
        self.before = nn.Linear(10, 10)
        self.layer = kind(10, 12, batch_first=True, **options)
        self.after = nn.Linear(24 if options.get("bidirectional") else 12, 5)

    def forward(self, x):
        return self.after(self.layer(self.before(x))[0])


class Steps(nn.Module):
    """A recurrent cell, called once for each step; its state starts as zeros of PyTorch, or of a function."""

    def __init__(self, kind, zeros=None):
        super().__init__()
        self.before, self.cell, self.after = nn.Linear(10, 10), kind(10, 12), nn.Linear(12, 5)
        self.zeros = zeros

    def forward(self, x):
        state = self.zeros and self.zeros(x)
        for step in range(3):
            state = self.cell(self.before(x[:, step]), state)
        return self.after(state[0] if isinstance(state, tuple) else state)


class Tied(nn.Module):
    """The matrix of the embedding is that of the head."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(20, 12), nn.LSTM(12, 16, batch_first=True)
        self.project, self.head = nn.Linear(16, 12), nn.Linear(12, 20)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.project(self.layer(self.table(x))[1][0][-1]))


def transformer(how):
    parts = {"norm1": nn.LayerNorm(24), "norm2": nn.LayerNorm(24), "attention": Attention(how)}
    parts |= {"first": nn.Linear(10, 24), "wide": nn.Linear(24, 48), "narrow": nn.Linear(48, 24)}

    def function(s, x):
        x = s.first(x) + s.positions
        x = x + s.attention(s.norm1(x))
        return s.head((x + s.narrow(F.gelu(s.wide(s.norm2(x))))).mean(1))

    return Net(function, **parts, head=nn.Linear(24, 5), positions=nn.Parameter(torch.randn(1, 7, 24)))


def shortcut(padded, **own):
    """A residual addition of 8 channels, padded, to 16."""
    parts = {"a": conv(3, 8), "n": nn.BatchNorm2d(8), "b": conv(8, 16), "c": conv(16, 4)}

    def function(s, x):
        x = F.relu(s.n(s.a(x)))
        return s.c(F.relu(s.b(x) + padded(s, x)))

    return Net(function, **parts, **own)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def shuffled(s, x):
    y = s.a(x)
    b, c, *size = y.shape
    return s.c(s.b(y.view(b, 2, c // 2, *size).transpose(1, 2).reshape(b, c, *size)))


def gated(s, x):
    one, other = s.a(x).chunk(2, 1)
    return s.b(one * other.sigmoid())


def squeezed(s, x):
    y = s.a(x)
    return s.d(y * torch.sigmoid(s.c(F.relu(s.b(y.mean((2, 3), keepdim=True))))))


def split_by_attribute(s, x):
    one, other = s.a(x).split((s.width, s.width), 1)
    return s.c(torch.cat([one, other, s.b(other)], 1))


def dense_block(s, x):
    y = s.a(x)
    return s.c(torch.cat([y, s.b(y), x], 1))


def concatenated_and_added(s, x):
    y = s.a(x)
    return s.d(torch.cat([y, s.b(y)], 1) + s.c(x))


def unet(s, x):
    y = F.relu(s.a(x))
    return s.c(torch.cat([y, F.interpolate(s.b(F.max_pool2d(y, 2)), scale_factor=2)], 1))


@dataclass(frozen=True)
class Case:
    """A network, the shape of its input, the units of each group, and a part of the reason why a weight stays."""

    make: object
    shape: tuple
    units: dict
    stays: dict = field(default_factory=dict)


_POOLED = (nn.AdaptiveAvgPool2d(1), nn.Flatten())

CASES = {
    "batch-norm": Case(
        lambda: nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 12), *_POOLED, nn.Linear(12, 5)),
        IMAGE,
        {"0.weight": 8, "3.weight": 12},
        {"6.weight": "output"},
    ),
    "flattened": Case(
        lambda: nn.Sequential(
            conv(3, 8), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(72, 16), nn.Sigmoid(), nn.Linear(16, 5)
        ),
        IMAGE,
        {"0.weight": 8, "3.weight": 16},
    ),
    "depthwise": Case(
        lambda: nn.Sequential(
            conv(3, 8, 1), conv(8, 8, groups=8), nn.BatchNorm2d(8), conv(8, 16, groups=8), nn.Hardswish(), conv(16, 4)
        ),
        IMAGE,
        {"0.weight": 8},
    ),
    "groups": Case(
        lambda: nn.Sequential(
            conv(3, 16, 1),
            conv(16, 24, groups=8),
            nn.PReLU(24),
            conv(24, 32, 1),
            conv(32, 16, groups=2),
            conv(16, 4, 1),
        ),
        IMAGE,
        {"0.weight": 8, "3.weight": 16, "4.weight": 8},
    ),
    "transposed": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.ConvTranspose2d(16, 12, 3),
            nn.ConvTranspose2d(12, 12, 3, groups=12),
            nn.ConvTranspose2d(12, 8, 2, stride=2, groups=2),
            conv(8, 4, 1),
        ),
        IMAGE,
        {"0.weight": 16, "1.weight": 6, "3.weight": 4},
    ),
    "concatenation": Case(
        lambda: Net(dense_block, a=conv(3, 8), b=conv(8, 6), c=conv(17, 5)), IMAGE, {"a.weight": 8, "b.weight": 6}
    ),
    "concatenation, added": Case(
        lambda: Net(concatenated_and_added, a=conv(3, 8), b=conv(8, 6), c=conv(3, 14), d=conv(14, 5)),
        IMAGE,
        {"a.weight": 14},
    ),
    "gate": Case(lambda: Net(gated, a=conv(3, 16), b=conv(8, 5)), IMAGE, {"a.weight": 8}),
    "glu": Case(lambda: nn.Sequential(conv(3, 16), nn.GLU(1), conv(8, 5)), IMAGE, {"0.weight": 8}),
    "split by an attribute": Case(
        lambda: Net(split_by_attribute, width=8, a=conv(3, 16), b=conv(8, 8), c=conv(24, 5)),
        IMAGE,
        {"a.weight": 8, "b.weight": 8},
    ),
    "split by numbers": Case(
        lambda: Net(
            lambda s, x: s.c(torch.cat([s.b(s.a(x).split((4, 12), 1)[1]), s.a(x)[:, 12:]], 1)),
            a=conv(3, 16),
            b=conv(12, 8),
            c=conv(12, 5),
        ),
        IMAGE,
        {"b.weight": 8},
        {"a.weight": "fixed positions"},
    ),
    "tail": Case(
        lambda: Net(lambda s, x: s.c(s.a(x)[:, 4:]), a=conv(3, 16), c=conv(12, 5)),
        IMAGE,
        {"a.weight": 12},
        {"a.weight": "4 of 16 channels stay"},
    ),
    "shuffle": Case(
        lambda: Net(shuffled, a=conv(3, 16), b=conv(16, 16, groups=2), c=conv(16, 5)),
        IMAGE,
        {"a.weight": 4, "b.weight": 8},
    ),
    "channel_shuffle": Case(
        lambda: nn.Sequential(conv(3, 16), nn.ChannelShuffle(2), conv(16, 16, groups=2), conv(16, 5)),
        IMAGE,
        {"0.weight": 4, "2.weight": 8},
    ),
    "view of a number": Case(
        lambda: Net(lambda s, x: s.c(s.a(x).mean((2, 3)).view(-1, 16)), a=conv(3, 16), c=nn.Linear(16, 5)),
        IMAGE,
        {},
        {"a.weight": "shape '[-1, 16]' is invalid"},
    ),
    "pixel shuffle": Case(
        lambda: nn.Sequential(conv(3, 32), nn.PixelShuffle(2), nn.BatchNorm2d(8), conv(8, 5)), IMAGE, {"0.weight": 8}
    ),
    "pixel unshuffle": Case(
        lambda: nn.Sequential(conv(3, 8), nn.PixelUnshuffle(2), conv(32, 5)), IMAGE, {"0.weight": 8}
    ),
    "squeeze and excite": Case(
        lambda: Net(squeezed, a=conv(3, 16), b=conv(16, 4, 1), c=conv(4, 16, 1), d=conv(16, 5)),
        IMAGE,
        {"a.weight": 16, "b.weight": 4},
    ),
    "norms of groups and instances": Case(
        lambda: nn.Sequential(
            conv(3, 16), nn.GroupNorm(4, 16), nn.ReLU(), conv(16, 12), nn.InstanceNorm2d(12, affine=True), conv(12, 5)
        ),
        IMAGE,
        {"0.weight": 4, "3.weight": 12},
    ),
    "scaled channels": Case(
        lambda: Net(
            lambda s, x: s.c(s.scale * s.a(x) + s.shift),
            a=conv(3, 16),
            c=conv(16, 5),
            scale=nn.Parameter(torch.randn(16, 1, 1)),
            shift=nn.Parameter(torch.randn(1, 16, 1, 1)),
        ),
        IMAGE,
        {"a.weight": 16},
    ),
    "weight norm": Case(
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv(3, 16)), nn.ReLU(), conv(16, 5)),
        IMAGE,
        {"0.parametrizations.weight.original1": 16},
    ),
    "softmax over channels": Case(
        lambda: nn.Sequential(conv(3, 8), nn.Softmax(1), conv(8, 4)), IMAGE, {}, {"0.weight": "softmax computes over"}
    ),
    "upsampled": Case(
        lambda: nn.Sequential(conv(3, 8), nn.Upsample(scale_factor=2, mode="bilinear"), conv(8, 6), conv(6, 2)),
        IMAGE,
        {"0.weight": 8, "2.weight": 6},
    ),
    "u-net": Case(
        lambda: Net(unet, a=conv(3, 8), b=conv(8, 10), c=conv(18, 4)), IMAGE, {"a.weight": 8, "b.weight": 10}
    ),
    "padded shortcut, a module": Case(lambda: shortcut(lambda s, x: s.pads(x), pads=Pads(4)), IMAGE, {"a.weight": 16}),
    "padded shortcut, an attribute": Case(
        lambda: shortcut(lambda s, x: F.pad(x, (0, 0, 0, 0, s.more, s.more)), more=4), IMAGE, {"a.weight": 12}
    ),
    "padded shortcut, a number": Case(
        lambda: shortcut(lambda s, x: F.pad(x, (0, 0, 0, 0, 4, 4))),
        IMAGE,
        {"a.weight": 8},
        {"b.weight": "8 of 16 channels stay: the code fills in"},
    ),
    "lstm": Case(lambda: Recurs(nn.LSTM), SEQUENCE, {"before.weight": 10, "layer.weight_ih_l0": 12}),
    "gru of two layers": Case(
        lambda: Recurs(nn.GRU, num_layers=2), SEQUENCE, {"before.weight": 10, "layer.weight_ih_l0": 12}
    ),
    "lstm in both directions": Case(
        lambda: Recurs(nn.LSTM, num_layers=2, bidirectional=True),
        SEQUENCE,
        {"layer.weight_ih_l0": 12, "before.weight": 10},
    ),
    "rnn": Case(lambda: Recurs(nn.RNN), SEQUENCE, {"before.weight": 10, "layer.weight_ih_l0": 12}),
    "lstm cell": Case(lambda: Steps(nn.LSTMCell), SEQUENCE, {"before.weight": 10, "cell.weight_ih": 12}),
    "gru cell": Case(lambda: Steps(nn.GRUCell), SEQUENCE, {"before.weight": 10, "cell.weight_ih": 12}),
    "rnn cell": Case(lambda: Steps(nn.RNNCell), SEQUENCE, {"before.weight": 10, "cell.weight_ih": 12}),
    "gru cell with zeros of a number": Case(
        lambda: Steps(nn.GRUCell, lambda x: x.new_zeros(x.shape[0], 12)),
        SEQUENCE,
        {"before.weight": 10},
        {
            "cell.weight_ih": "its code does not follow",
            "cell.weight_hh": "its code does not follow",
            "after.weight": "the model's output has its channels",
        },
    ),
    "weights that nothing reads": Case(
        lambda: Net(
            lambda s, x: s.c(s.b(s.a(x)[:, 0], s.a(x)[:, 1])),
            a=nn.Linear(10, 12),
            b=nn.Bilinear(12, 12, 8),
            c=nn.Linear(8, 4),
            d=nn.Linear(3, 4),
        ),
        SEQUENCE,
        {},
        {"b.weight": "bilinear reads its channels", "d.weight": "the evaluation program does not read it"},
    ),
    "small outputs that depend on the width": Case(
        lambda: nn.Sequential(conv(3, 64), Averages(), conv(64, 5), Scales(1e-3)),
        IMAGE,
        {},
        {"0.weight": "something else with fewer channels"},
    ),
    "tied embedding": Case(
        Tied, WORDS, {"layer.weight_ih_l0": 16, "head.weight": 12}, {"head.weight": "the inputs choose its rows"}
    ),
    "heads, unbound": Case(
        lambda: transformer("unbind"),
        SEQUENCE,
        {"attention.qkv.weight": 4, "wide.weight": 48},
        {"first.weight": "layer_norm computes over"},
    ),
    "heads, of a divided width": Case(
        lambda: transformer("divided"),
        SEQUENCE,
        {"wide.weight": 48},
        {"attention.qkv.weight": "its code does not follow"},
    ),
    "heads, of what is left": Case(
        lambda: transformer("the rest"), SEQUENCE, {"attention.qkv.weight": 4, "wide.weight": 48}
    ),
    "heads, causal": Case(lambda: transformer("causal"), SEQUENCE, {"attention.qkv.weight": 4, "wide.weight": 48}),
    "heads, rotary": Case(lambda: transformer("rotary"), SEQUENCE, {"attention.qkv.weight": 4, "wide.weight": 48}),
    "heads, rotary, a buffer": Case(
        lambda: transformer("rotary, a buffer"), SEQUENCE, {"attention.qkv.weight": 4, "wide.weight": 48}
    ),
    "packed attention of PyTorch": Case(
        lambda: nn.Sequential(
            nn.Linear(10, 24), nn.TransformerEncoderLayer(24, 4, 48, batch_first=True), nn.Linear(24, 5)
        ),
        SEQUENCE,
        {"1.linear1.weight": 48},
        {"1.self_attn.in_proj_weight": "its code does not follow"},
    ),
    "einsum": Case(
        lambda: Net(
            lambda s, x: s.b(torch.einsum("btc,cd->btd", s.a(x), s.w)),
            a=nn.Linear(10, 12),
            w=nn.Parameter(torch.randn(12, 8)),
            b=nn.Linear(8, 4),
        ),
        SEQUENCE,
        {"a.weight": 12, "w": 8},
    ),
}


def made(name):
    """Return a network with statistics of its own, and an input."""
    case = CASES[name]
    torch.manual_seed(0)
    module = case.make().eval()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.weight, norm.running_var):
                    tensor.uniform_(0.5, 1.5)
                norm.running_mean.normal_()
                norm.bias.normal_()
    x = torch.randint(0, 20, case.shape) if case.shape is WORDS else torch.randn(case.shape)
    return module, x
