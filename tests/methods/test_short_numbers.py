"""Fewer digits of scales and vectors: what changes, by how much, and what does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.methods.toys import fresh
from tests.samples import codebook, dense

import attar
from attar._src.core.float16 import round_nearest
from attar._src.core.numbers.short_tensors import shorten_tensors
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Dense, Quantized
from attar._src.methods.quantize.integer_layers import integer_biases
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import Context

X = torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def begun():
    """A module whose batch-norms, once folded, leave scales of any number of digits."""
    learner = fresh(width=16)
    torch.manual_seed(0)
    with torch.no_grad():
        for norm in (learner.module.norm1, learner.module.norm2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    learner.attach(StraightThrough(bits=4).attach(learner))
    return learner.deployed()


def decibels(model, short):
    with torch.no_grad():
        wanted, found = (each.simulate()(X).double().numpy() for each in (model, short))
    return 10 * np.log10(((wanted - wanted.mean(0)) ** 2).mean() / ((found - wanted) ** 2).mean())


def test_codes_stay_and_no_output_changes_by_as_much_as_could_be_measured():
    model = begun()
    short = shorten_numbers(model)
    weights = [name for name, tensor in model.tensors.items() if isinstance(tensor, Quantized)]
    changed = 0
    for name in weights:
        old, new = model.tensors[name], short.tensors[name]
        np.testing.assert_array_equal(new.codes, old.codes)
        np.testing.assert_array_equal(round_nearest(new.scale, 8), new.scale)
        assert (np.abs(new.scale / old.scale - 1) <= 2.0**-9).all()
        changed += int((new.scale != old.scale).sum())
    assert changed
    vectors = [tensor for name, tensor in short.stored().items() if name.endswith("bias")]
    assert vectors
    assert "f16" in {tensor.dtype for tensor in vectors}
    assert decibels(model, short) > 40  # the rounding to 4 bits errs by about 20
    assert shorten_numbers(short) is short


def test_biases_of_integer_layers_are_whole_steps_of_the_new_scales():
    model = begun()
    done = PostTrainingQuantize(layers=(), activations=8, correct_bias=False).run(
        model, Context(CalibrationInputs(((X,),)))
    )
    short = shorten_numbers(done)
    biases = integer_biases(short)
    assert biases
    grids = [np.float32(grid.scale) for grid in short.main.activations.values()]
    for name in biases:
        bias, weight = short.tensors[name], short.tensors[name.replace("bias", "weight")]
        assert bias.dtype == "f32"
        whole = [
            np.rint(bias.data / (grid * weight.scale)) * (grid * weight.scale).astype(np.float64) for grid in grids
        ]
        assert any(np.array_equal(each.astype(np.float32), bias.data) for each in whole)
    # Activations of 8 bits move to the next code now and then: 24 to 33, by the weights that the net was born with.
    assert decibels(done, short) > 20


def test_a_model_without_codes_stays_as_it_is():
    model = fresh().deployed()
    assert shorten_numbers(model) is model


@pytest.mark.parametrize(
    ("values", "stays"),
    [
        ([0.5, -1.3, 3e-5], False),
        ([1.0, 60.0, 0.0], False),
        ([1.0, 200.07, 0.0], True),  # 2^-4 is more than 1/32 of a step
        ([1.0, 1e6, 0.0], True),  # beyond half precision
        ([1e-3, np.inf, 0.0], True),
        ([np.nan, 1.0, 0.0], True),
    ],
)
def test_biases_become_half_precision_where_that_is_little_beside_a_step_of_their_weights(values, stays):
    scheme = Scheme(bits=4, granularity=PerChannel())
    tensors = {
        "a": Dense(np.array(values, np.float32)),
        "w": Quantized(np.ones((3, 4), np.int8), np.ones(3, np.float32), scheme),
    }
    assert (shorten_tensors(tensors, {"a": "w"}) == {}) == stays
    assert shorten_tensors(tensors, {}) == {}
    assert shorten_tensors({"a": tensors["a"]}, {}) == {}  # nothing has codes


def test_a_scale_that_would_become_zero_stays():
    tiny = np.array([1.0, 0.3, 0.3, 1e-44], np.float32)
    weight = Quantized(np.ones((4, 4), np.int8), tiny, Scheme(bits=4, granularity=PerChannel()))
    assert shorten_tensors({"w": weight}, {}) == {}


class Recurrent(torch.nn.Module):
    """A recurrent stack and a linear layer; biases five times as large as PyTorch begins with."""

    def __init__(self, kind, features, **options):
        super().__init__()
        self.rnn = kind(8, 24, 2, batch_first=True, **options)
        self.head = torch.nn.Linear(features, 5)
        with torch.no_grad():
            for name, parameter in self.rnn.named_parameters():
                parameter.mul_(5 if "bias" in name else 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize(
    ("kind", "features", "options"),
    [
        (torch.nn.LSTM, 24, {}),
        (torch.nn.GRU, 48, {"bidirectional": True}),
        (torch.nn.RNN, 24, {}),
    ],
)
def test_biases_of_recurrent_layers_are_halved_and_change_no_output_beside_the_rounding_of_weights(
    kind, features, options, tmp_path
):
    """Kind: an error that a layer feeds back to itself and that grows over the steps."""
    torch.manual_seed(0)
    net, x = Recurrent(kind, features, **options).eval(), torch.randn(32, 60, 8)
    result = attar.quantize(net, x, bits=4, tolerance=None)
    found = {name: tensor for name, tensor in result.compressed.stored().items() if "rnn.bias" in name}
    assert {tensor.dtype for tensor in found.values()} == {"f16"}
    assert len(found) == sum("bias" in name for name, _ in net.rnn.named_parameters())
    exact = {name: Dense(dict(net.named_parameters())[name].detach().numpy()) for name in found}
    whole = replace(result.compressed, tensors={**result.compressed.tensors, **exact})
    with torch.no_grad():
        wanted, rounded, halved = (
            each(x).double().numpy() for each in (net, whole.simulate(), result.compressed.simulate())
        )
    assert ((halved - rounded) ** 2).mean() < 1e-3 * ((rounded - wanted) ** 2).mean()  # 30 dB below the weights'
    result.save(tmp_path / "m.attar")  # compares the file with the module on these inputs


class Standardized(torch.nn.Module):
    """Subtracts means a thousand times as large as what differs between examples."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.linspace(500, 3000, 16))
        self.layer = torch.nn.Linear(16, 8)

    def forward(self, x):
        return self.layer(x - self.mean)


class Rotary(torch.nn.Module):
    """Multiplies frequencies by positions up to 4096, of which the cosine takes every digit."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", 1e4 ** -(torch.arange(16) / 16))
        self.layer = torch.nn.Linear(16, 8)

    def forward(self, x):
        return self.layer(torch.cos(x * self.frequencies))


class Scaled(torch.nn.Module):
    """Multiplies by layer scales near the least number of half precision."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = torch.nn.Linear(16, 8), torch.nn.Parameter(torch.rand(8) * 1e-6 + 1e-7)

    def forward(self, x):
        return self.layer(x) * self.scale * 1e6


@pytest.mark.parametrize("kind", ["standardized", "rotary", "scaled", "norm of raw features"])
def test_numbers_of_which_no_digit_is_too_many_stay(kind):
    """Kind: a number that meets one as large, or a factor as large, keeps all its digits."""
    torch.manual_seed(0)
    x = torch.linspace(500, 3000, 16) + torch.randn(256, 16)
    match kind:
        case "standardized":
            net = Standardized()
        case "rotary":
            net, x = Rotary(), torch.randint(0, 4096, (256, 1)).float()
        case "scaled":
            net, x = Scaled(), torch.randn(256, 16)
        case _:
            net = torch.nn.Sequential(torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
            net[0].running_mean.copy_(x.mean(0))
            net[0].running_var.copy_(x.var(0))
    net.eval()
    with torch.no_grad():
        wanted = net(x).numpy()
    found = attar.quantize(net, x, bits=8).module(x).detach().numpy()
    assert 10 * np.log10(((wanted - wanted.mean(0)) ** 2).mean() / ((found - wanted) ** 2).mean()) > 35


def test_matrices_codebooks_and_the_few_scales_of_a_tensor_stay(rng):
    one = Quantized(np.ones((3, 4), np.int8), np.full(3, 0.3, np.float32), Scheme(bits=4, granularity=PerChannel()))
    assert shorten_tensors({"a": dense(rng, 3, 4), "b": codebook(rng, (4, 9)), "c": one}, {}) == {}


class Layer(torch.nn.Module):
    """A layer of a transformer, norms first, with factors and shifts of all sizes."""

    def __init__(self, norm, then=None):
        super().__init__()
        self.norm, self.up, self.down = norm, torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
        self.then = then or torch.nn.Identity()
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.uniform_(-2, 2)

    def forward(self, x):
        return self.then(x + self.down(torch.relu(self.up(self.norm(x)))))


@pytest.mark.parametrize(("norm", "bits"), [(torch.nn.LayerNorm, 8), (torch.nn.LayerNorm, 3), (torch.nn.RMSNorm, 4)])
def test_norms_that_weights_read_are_halved_and_change_outputs_far_less_than_the_rounding_of_the_weights(norm, bits):
    torch.manual_seed(0)
    norm = norm(32)
    net, x = Layer(norm).eval(), torch.randn(64, 5, 32)
    short = attar.quantize(net, x, bits=bits, tolerance=None).compressed
    vectors = {f"norm.{name}": Dense(parameter.detach().numpy()) for name, parameter in norm.named_parameters()}
    assert {short.stored()[name].dtype for name in vectors} == {"f16"}
    exact = replace(short, tensors={**short.tensors, **vectors})
    with torch.no_grad():
        wanted, rounded, halved = (each(x).double() for each in (net, exact.simulate(), short.simulate()))
    assert ((halved - rounded) ** 2).mean() < 10**-2.5 * ((rounded - wanted) ** 2).mean()


@pytest.mark.parametrize("kind", ["read by a sum", "the output", "large shifts", "weights in floating point", "shared"])
def test_norms_that_other_nodes_read_or_whose_digits_matter_keep_them(kind):
    """Kind: a number that meets one as large keeps all its digits."""
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(32)
    net = Layer(norm, norm if kind == "shared" else None).eval()
    options = {"keep": ["up.weight"]} if kind == "weights in floating point" else {}
    match kind:
        case "read by a sum":
            net = torch.nn.Sequential(net, torch.nn.LayerNorm(32), Layer(torch.nn.Identity())).eval()
            found = "1."
        case "the output":
            net = torch.nn.Sequential(net, torch.nn.LayerNorm(32)).eval()
            found = "1."
        case "large shifts":
            net.norm.bias.data.fill_(3000.1)
            found = "norm.bias"
        case "shared":
            found = "then."
        case _:
            found = "norm."
    for parameter in net[1].parameters() if isinstance(net, torch.nn.Sequential) else ():
        parameter.data.uniform_(-2, 2)
    short = attar.quantize(net, torch.randn(64, 5, 32), bits=4, tolerance=None, **options).compressed
    assert {each.dtype for name, each in short.stored().items() if name.startswith(found)} == {"f32"}
