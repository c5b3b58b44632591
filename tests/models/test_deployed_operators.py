"""Operators as people use them: quantized to 8 bits, packed, opened and compared with the floating-point module.

The operators of a table are branches of one module behind one layer, each with an output of its own name. The dry run
compares every branch of the untouched file with the module; here the quantized one is checked. Outputs that jump
(indices, thresholds) have no signal-to-noise ratio to speak of.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attar
from attar._src.core.errors import ModelError

JUMPS = {"argsort", "topk indices", "argmax", "any", "gather", "scatter add", "bucketize", "trunc", "hardshrink"}
JUMPS |= {"grid_sample nearest", "max unpool", "round", "sign"}


def image(x):
    """Return the values of a hidden layer, ``(B, 16)``, as small images of two channels ``(B, 2, 4, 2)``."""
    return x.reshape(-1, 2, 4, 2)


def assigned(x, where, value):
    x = x.clone()
    x[where] = value
    return x


VECTORS = {
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "topk": lambda x: F.pad(x.topk(5).values, (0, 11)),
    "topk indices": lambda x: x.topk(5).indices,
    "sort": lambda x: x.sort(1, descending=True).values,
    "argsort": lambda x: x.argsort(1),
    "argmax": lambda x: x.argmax(1),
    "any": lambda x: (x > 0).any(1),
    "max": lambda x: x - x.max(1, keepdim=True).values,
    "median": lambda x: x - x.median(1, keepdim=True).values,
    "kthvalue": lambda x: x - x.kthvalue(3, 1, keepdim=True).values,
    "one_hot": lambda x: F.one_hot((x[:, 0] > 0).long(), 2).float().repeat(1, 8) * x,
    "gather": lambda x: x.gather(1, x.argsort(1)),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, torch.arange(15, -1, -1).expand(x.shape), x),
    "scatter add": lambda x: torch.zeros_like(x).scatter_add(1, x.argsort(1), x),
    "index_add": lambda x: x.index_add(1, torch.tensor([0, 1]), x[:, :2]),
    "index_select": lambda x: x.index_select(1, torch.arange(15, -1, -1)),
    "index": lambda x: x[:, torch.arange(15, -1, -1)],
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "mask assigned": lambda x: assigned(x, x < 0, 0.0),
    "rows assigned": lambda x: assigned(x, x[:, 0] < 1e9, 0.5) + x,
    "slice assigned": lambda x: assigned(x, (slice(None), slice(0, 2)), 0.5),
    "roll": lambda x: x.roll(3, 1),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x).mean(1),
    "cdist": lambda x: torch.cdist(x.reshape(-1, 4, 4), x.reshape(-1, 4, 4) + 1).flatten(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "glu": lambda x: F.glu(x, 1).repeat(1, 2),
    "layer_norm": lambda x: F.layer_norm(x, (16,)),
    "rms_norm": lambda x: F.rms_norm(x, (16,)),
    "std": lambda x: x / x.std(1, keepdim=True),
    "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1)[:, :16],
    "tril": lambda x: (x.unsqueeze(1) * x.unsqueeze(2)).tril().mean(1),
    "atan2": lambda x: torch.atan2(x, x.flip(1).abs() + 1),
    "inverse circular": lambda x: torch.asin(x.tanh()) + torch.atan(x) + torch.acos(x.tanh() / 2),
    "hyperbolic": lambda x: torch.sinh(x / 2) + torch.cosh(x / 2) + torch.asinh(x) + torch.tan(x / 4),
    "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "nan_to_num": lambda x: torch.nan_to_num(x),
    "trunc": lambda x: x.trunc() + x.frac() + x.sign(),
    "cross": lambda x: torch.cross(x[:, :3], x[:, 3:6], dim=1).repeat(1, 6)[:, :16],
    "diag_embed": lambda x: torch.diag_embed(x).sum(1),
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "leaky_relu": F.leaky_relu,
    "rrelu": F.rrelu,
    "softsign": F.softsign,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "tanhshrink": F.tanhshrink,
    "logsigmoid": F.logsigmoid,
    "softmin": lambda x: F.softmin(x, 1),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.5, training=False),
}
IMAGES = {
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": F.instance_norm,
    "batch_norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_norm always in training": lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8), training=True),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2)[:, :8],
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "interpolate nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "interpolate nearest-exact": lambda x: F.interpolate(x, size=(5, 7), mode="nearest-exact"),
    "interpolate bilinear": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
    "interpolate corners": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "interpolate bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "interpolate antialias": lambda x: F.interpolate(x, size=(4, 4), mode="bicubic", antialias=True),
    "interpolate area": lambda x: F.interpolate(x, size=(4, 4), mode="area"),
    "interpolate like": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear"),
    "interpolate trilinear": lambda x: F.interpolate(x[:, :, None], scale_factor=(1, 2, 2), mode="trilinear")[:, :, 0],
    "grid_sample bilinear": lambda x: F.grid_sample(x, GRID.expand(x.shape[0], -1, -1, -1), align_corners=False),
    "grid_sample nearest": lambda x: F.grid_sample(x, GRID.expand(x.shape[0], 8, 8, 2), "nearest", "border", False),
    "grid_sample bicubic": lambda x: F.grid_sample(x, GRID.expand(x.shape[0], 8, 8, 2), "bicubic", "reflection", False),
    "affine_grid": lambda x: F.grid_sample(
        x, F.affine_grid(SHEAR.expand(x.shape[0], 2, 3), x.shape, False), align_corners=False
    ),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_avg_pool one side": lambda x: F.adaptive_avg_pool2d(x, (1, None)),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_max_pool uneven": lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    "adaptive_max_pool1d uneven": lambda x: F.adaptive_max_pool1d(x.flatten(2), 7).unsqueeze(2),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "max_pool ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "avg_pool padding": lambda x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False),
    "prelu": lambda x: F.prelu(x - 0.5, torch.linspace(0.1, 0.5, 8)),
    "unfold": lambda x: F.unfold(x, 2, stride=2)[:, ::4].unsqueeze(3),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2, dilation=1), (8, 8), 3, padding=1, stride=2),
    "Tensor.unfold": lambda x: x.unfold(2, 4, 2).mean(-1),
    "pad reflect": lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"),
    "pad replicate": lambda x: F.pad(x, (1, 2, 1, 1), mode="replicate"),
    "pad circular": lambda x: F.pad(x, (1, 2, 1, 1), mode="circular"),
    "dropout2d": lambda x: F.dropout2d(x, 0.5, training=False),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "softmax2d": lambda x: F.softmax(x, 1),
}
GRID = torch.rand(1, 8, 8, 2, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
SHEAR = torch.tensor([[[0.9, 0.2, 0.1], [-0.1, 0.8, 0.0]]])


class Branches(nn.Module):
    """A layer, each operator behind it, and one head for all results that have the values' channels."""

    def __init__(self, first, head, operators, channels):
        super().__init__()
        self.first, self.head, self.operators, self.channels = first, head, operators, channels

    def forward(self, x):
        x, found = self.first(x), {}
        for name, operator in self.operators.items():
            y = operator(x)
            headed = y.is_floating_point() and y.shape[1] == self.channels
            found[name] = self.head(y) if headed else y
        return found


def signal_to_noise(wanted, found):
    """Return it in decibel."""
    wanted = torch.as_tensor(wanted).numpy(force=True)  # also of a view with a lazy minus
    wanted, found = (np.asarray(each, np.float64) for each in (wanted, found))
    return 10 * np.log10((wanted**2).mean() / max(((wanted - found) ** 2).mean(), 1e-30))


def deployed(net, x, tmp_path):
    """Return the outputs of the module and those of its file with weights and activations of 8 bits."""
    attar.quantize(net, x, bits=8, activations=8).save(tmp_path / "m.attar")
    session = attar.Session(tmp_path / "m.attar")
    (port,) = session.inputs
    with torch.no_grad():
        return net(x), session.run({port.name: x.numpy()})


@pytest.mark.parametrize("table", ["vectors", "images"])
def test_operators_behind_a_layer(table, tmp_path):
    torch.manual_seed(0)
    if table == "vectors":
        net, x = Branches(nn.Linear(12, 16), nn.Linear(16, 4), VECTORS, 16), torch.randn(64, 12)
    else:
        net, x = Branches(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), IMAGES, 8), torch.randn(16, 3, 8, 8)
    wanted, found = deployed(net.eval(), x, tmp_path)
    assert list(found) == list(net.operators)
    low = {
        name: round(ratio, 1)
        for name, array in found.items()
        if name not in JUMPS and (ratio := signal_to_noise(wanted[name], array)) < 22
    }
    assert not low


class Spectra(nn.Module):
    """Front ends of audio: transforms of windows, and of the whole signal."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(33, 4)
        self.register_buffer("window", torch.hann_window(48))

    def forward(self, x):
        spectrum = torch.stft(x, 64, 16, 48, self.window, return_complex=True)
        magnitude = spectrum.abs()
        return {
            "magnitude": self.layer(magnitude.transpose(1, 2)),
            "log power": self.layer((torch.view_as_real(spectrum).square().sum(-1) + 1e-3).log().transpose(1, 2)),
            "not centred": self.layer(
                torch.stft(x, 64, return_complex=True, center=False, normalized=True, window=torch.ones(64)).real.mT
            ),
            "back": torch.istft(spectrum, 64, 16, 48, self.window, length=120),
            "conjugate": torch.fft.rfft(x).conj().imag,
            "hfft": torch.fft.hfft(torch.fft.ihfft(x).conj(), 128),
            "rfft": torch.fft.rfft(x, norm="ortho").abs(),
            "rfft padded": torch.fft.rfft(x, 150).imag,
            "fft": torch.fft.fft(x).real,
            "ifft": torch.fft.ifft(torch.fft.fft(x.to(torch.complex64) * 1j, 100, norm="forward"), norm="forward").imag,
            "irfft odd": torch.fft.irfft(torch.fft.rfft(x) * 0.5, 101),
            "convolution": torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(x.flip(1)), n=128),
            "rfft2": torch.fft.rfft2(x.reshape(-1, 8, 16)).abs(),
            "fftn": torch.fft.fftn(x.reshape(-1, 8, 16), dim=(1, 2)).real,
            "irfft2": torch.fft.irfft2(torch.fft.rfft2(x.reshape(-1, 8, 16))),
            "fnet": self.layer(torch.fft.fft2(x[:, :66].reshape(-1, 2, 33)).real),
        }


def test_fourier_transforms(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(16, 128)
    wanted, found = deployed(Spectra().eval(), x, tmp_path)
    low = {name: ratio for name, array in found.items() if (ratio := signal_to_noise(wanted[name], array)) < 30}
    assert not low
    # What no weight multiplies is not rounded, and the matrices of cosines are not in the file.
    assert signal_to_noise(wanted["rfft2"], found["rfft2"]) > 90
    assert (tmp_path / "m.attar").stat().st_size < 120_000


class Bags(nn.Module):
    def __init__(self, mode, padding=None, flat=False):
        super().__init__()
        self.bag, self.layer, self.flat = nn.EmbeddingBag(50, 8, mode=mode, padding_idx=padding), nn.Linear(8, 3), flat

    def forward(self, ids):
        weights = ids / 50 if self.bag.mode == "sum" else None
        if self.flat:
            starts = torch.arange(0, ids.numel(), ids.shape[1])
            return self.layer(self.bag(ids.flatten(), starts, None if weights is None else weights.flatten()))
        return self.layer(self.bag(ids, per_sample_weights=weights))


@pytest.mark.parametrize(
    "made",
    [lambda: Bags("mean"), lambda: Bags("sum", 0), lambda: Bags("max", 0), lambda: Bags("mean", 0, flat=True)],
)
def test_bags_of_embeddings(made, tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (24, 7))
    ids[0] = 0
    wanted, found = deployed(made().eval(), ids, tmp_path)
    assert signal_to_noise(wanted, next(iter(found.values()))) > 25


def test_bags_that_begin_anywhere():
    class Flat(nn.Module):
        def __init__(self, mode):
            super().__init__()
            self.bag, self.layer = nn.EmbeddingBag(50, 8, mode=mode, padding_idx=3), nn.Linear(8, 3)

        def forward(self, ids, starts):
            return self.layer(self.bag(ids, starts))

    ids, starts = torch.randint(0, 50, (24,)), torch.arange(24) // 2 * 2
    for mode in ("mean", "sum", "max"):
        net = Flat(mode).eval()
        quantized = attar.quantize(net, {"ids": ids, "starts": starts}, bits=8, dynamic=(), batch=24)
        with torch.no_grad():
            assert signal_to_noise(net(ids, starts), quantized.module(ids, starts)) > 25


class Attention(nn.Module):
    """Encoder and decoder layers with masks, and attention that returns its weights."""

    def __init__(self):
        super().__init__()
        sizes = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**sizes), 1)
        self.first = nn.TransformerEncoderLayer(**sizes, norm_first=True, activation="gelu")
        self.decoder = nn.TransformerDecoderLayer(**sizes)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        coded = self.encoder(x, mask=mask, is_causal=True)
        padded = self.encoder(x, src_key_padding_mask=x[:, :, 0] > 2)
        attended, weights = self.attention(x, x, x, average_attn_weights=False)
        return {
            "causal": coded,
            "padded": padded,
            "norm first": self.first(x),
            "decoder": self.decoder(x, coded, tgt_mask=mask),
            "attended": attended,
            "weights": weights,
        }


def test_transformer_layers_with_masks(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(12, 6, 16)
    x[:, 0, 0] = 0.0
    wanted, found = deployed(Attention().eval(), x, tmp_path)
    assert {name: ratio for name, array in found.items() if (ratio := signal_to_noise(wanted[name], array)) < 22} == {}


class Refused(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.head, self.function = nn.Linear(16, 16), nn.Linear(16, 4), function

    def forward(self, x):
        return self.head(self.function(self.layer(x)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x + torch.randn_like(x), "draws random numbers in evaluation mode: randn_like .*if self.training"),
        (lambda x: F.dropout(x, 0.5), r"random numbers in evaluation mode: dropout .*training=self\.training"),
        (lambda x: x * torch.bernoulli(x.sigmoid()), "random numbers in evaluation mode: bernoulli"),
        (
            lambda x: x if x.sum() > 0 else -x,
            r"cannot be traced \(at test_deployed.*depends on the values.*torch\.where",
        ),
        (lambda x: x[: int(x.argmax())].mean(0, keepdim=True), "depends on the values of a tensor"),
        (lambda x: x[x[:, 0] > 0], r"index .*becomes the ONNX operator NonZero.*torch\.where"),
        (lambda x: x + torch.unique(x).shape[0], r"unique.*operator Unique.*depends on data"),
        (lambda x: torch.from_numpy(x.detach().numpy()), r"leaves PyTorch with \.numpy\(\)"),
        (lambda x: torch.stack([x[i] for i in range(len(x))]), "fixes the length of an axis that should vary"),
        (
            lambda x: torch.linalg.inv(x.reshape(-1, 4, 4)).flatten(1),
            "linalg_inv .*has no form in ONNX: compute it outside",
        ),
        (lambda x: x.cummax(1).values, "cummax .*has no form in ONNX"),
        (
            lambda x: F.pad(torch.fft.rfft(x, 5000).real, (0, 13))[:, :16],
            "Fourier transform of 5000 points; at most 2048",
        ),
        (
            lambda x: x @ torch.ones(3, 3),
            r"fails on the first batch, x float32 \(8, 16\): .*cannot be multiplied.*deployed_operators\.py, line \d+",
        ),
    ],
)
def test_what_has_no_form_in_a_file_is_said_with_its_line_and_the_way_out(function, message):
    with pytest.raises(ModelError, match=f"(?s)^Refused .*{message}"):
        attar.quantize(Refused(function).eval(), torch.randn(8, 16), bits=8)


def test_an_embedding_that_renormalises_says_what_to_do():
    net = nn.Sequential(nn.Embedding(50, 8, max_norm=1.0), nn.Linear(8, 3))
    with pytest.raises(ModelError, match=r"embedding_renorm.*renormalise the table once after training"):
        attar.quantize(net.eval(), torch.randint(0, 50, (8, 4)), bits=8)
