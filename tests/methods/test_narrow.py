import numpy as np
import pytest
import torch
from tests.methods.toys import fresh
from torch import nn

from attar.artifact.inspect import describe
from attar.artifact.reader import open_artifact
from attar.artifact.writer import pack
from attar.core.halves import SMALLEST
from attar.core.scheme import PerBucket, PerChannel, PerTensor, Scheme
from attar.core.tensors import Codebook, Dense, Quantized, Sparse
from attar.methods.quantize.linear import Linear
from attar.methods.quantize.lsq import Lsq
from attar.methods.quantize.narrow import Narrow, narrowed, short_scales
from attar.methods.quantize.straight_through import StraightThrough
from attar.model.capture import capture
from attar.model.trace import deploy
from attar.runtime import Session
from attar.work.learner import Learner
from attar.work.workpiece import Use

RNG = np.random.default_rng(0)


def values(scale=1.0, count=100):
    return (RNG.normal(size=count) * scale).astype(np.float32)


@pytest.mark.parametrize(("scale", "kind"), [(1.0, "f16"), (1e30, "bf16"), (1e-12, "bf16"), (1e-3, "f16")])
def test_the_nearer_of_the_two_halves(scale, kind):
    given = values(scale)
    found = narrowed(given, 16)
    assert isinstance(found, Dense)
    assert found.dtype == kind
    assert np.abs(found.dense() - given).max() <= np.abs(given).max() * 2.0**-8


def test_bfloat16_rounds_to_nearest_even_as_torch_does():
    given = np.concatenate([values(1e30, 1000), np.array([1e38, -1e-38, 0.0], np.float32)])
    assert np.array_equal(narrowed(given, 16).dense(), torch.from_numpy(given).bfloat16().float().numpy())


def test_eight_bits_lie_on_a_grid_over_the_tensors_range():
    given = values()
    found = narrowed(given, 8)
    assert isinstance(found, Quantized)
    assert np.abs(found.dense() - given).max() <= np.abs(given).max() / 127 * 0.501


def test_one_large_value_does_not_round_the_others_to_nothing():
    # What a channel that never fires did to the batch-norm of a real network.
    given = np.append(values(0.05) + np.float32(0.3), np.float32(104.0))
    found = narrowed(given, 8)
    assert isinstance(found, Dense)
    assert np.abs(found.dense() - given).max() <= 2.0**-11 * 104
    assert np.abs(found.dense() - given)[:-1].max() <= 2.0**-11


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_what_is_narrow_survives_exactly(bits, scale):
    once = narrowed(values(scale), bits).dense()
    assert np.array_equal(narrowed(once, bits).dense(), once)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e-30])
def test_one_value_throughout_is_kept_exactly_and_takes_no_bits(bits, value):
    given = np.full(300, value, np.float32)
    found = narrowed(given, bits)
    assert isinstance(found, Quantized)
    assert np.array_equal(found.dense(), given)


@pytest.mark.parametrize("given", [np.array([1.0, np.inf], np.float32), np.float32(2.5).reshape(()), values(count=0)])
def test_what_cannot_be_narrowed_stays(given):
    found = narrowed(given, 8)
    assert found.dtype == "f32"
    assert np.array_equal(found.dense(), given)


def test_a_vector_of_bfloat16_that_would_be_infinite_stays_finite():
    assert np.isfinite(narrowed(np.array([3.4e38, 1.0], np.float32), 16).dense()).all()


class Behind(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.norm(torch.relu(self.conv(x))).mean((2, 3)))


def packed(*rules, small=None):
    torch.manual_seed(0)
    module, x = Behind(), torch.randn(4, 2, 8, 8)
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    if small is not None:
        with torch.no_grad():
            # Every other channel hardly varies.
            module.conv.weight[::2] *= small
            module.norm.running_var[::2] *= small**2
            for mean in (module.conv.bias, module.norm.running_mean):
                mean[::2] = 0
    captured = capture(module, (x,))
    learner = Learner(module, captured, deploy(module, captured))
    for rule in rules:
        learner.attach(rule.attach(learner))
    data = pack(learner.deployed().contents(Use()))
    session = Session(data)
    found = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        return open_artifact(data), found, learner.graph(train=False)(x).numpy()


def test_a_file_in_fewer_bits_is_smaller_and_computes_nearly_the_same():
    sizes = []
    for rules in ((), (Narrow(),), (Narrow(bits=8),)):
        artifact, found, wanted = packed(Lsq(bits=4), *rules)
        assert np.abs(found - wanted).max() < (0.05 if rules == (Narrow(bits=8),) else 5e-3) * np.abs(wanted).max()
        sizes.append(describe(artifact)["file_bytes"])
    # A batch-norm of 64 channels: from 16 bytes a channel to 4.
    assert sizes[0] - sizes[1] > 64 * 12
    assert sizes[2] < sizes[1]


def test_batch_norms_become_two_vectors_unless_they_shall_be_trained_on():
    merged, kept = packed(Narrow())[0], packed(Narrow(merge=False))[0]
    assert {"norm.weight", "norm.bias"} <= set(merged.names)
    assert "norm.running_var" not in merged.names
    assert "norm.running_var" in kept.names
    assert kept.tensor("norm.running_var").dtype == "f16"


def test_a_small_variance_is_not_rounded_to_zero():
    artifact, found, wanted = packed(Lsq(bits=8), Narrow(bits=8, merge=False), small=0.03)
    assert isinstance(artifact.tensor("norm.running_var"), Dense)
    assert isinstance(artifact.tensor("norm.weight"), Quantized)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_what_integer_kernels_add_stays_as_they_need_it():
    learner = fresh()
    x = torch.randn(8, 2, 8, 8)
    for rule in (StraightThrough(bits=8, activations=8), Narrow(bits=8)):
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    for constraint in learner.constraints:
        graph(x)
        constraint.sync(lambda tensor: tensor.clone())
    before = {name: tensor.dense() for name, tensor in learner.deployed().tensors.items()}
    learner.constraints.pop()
    plain = learner.deployed().tensors
    assert all(np.array_equal(before[name], tensor.dense()) for name, tensor in plain.items())


def on_grid(scale):
    """A weight with these scales, one for each channel."""
    scale = np.asarray(scale, np.float32)
    codes = RNG.integers(-7, 8, (len(scale), 5)).astype(np.int8)
    return Quantized(codes, scale, Scheme(bits=4, granularity=PerChannel()))


FLOAT16 = np.geomspace(2.0**-14, 65504, 50)
BFLOAT16 = np.geomspace(2.0**-126, 3.38e38, 50)


@pytest.mark.parametrize(
    ("scale", "dtype", "error"),
    [
        (FLOAT16, "f16", 2.0**-11),
        (FLOAT16[:4], "f16", 2.0**-11),
        (BFLOAT16, "bf16", 2.0**-8),
        (np.append(FLOAT16, 2.0**-15), "bf16", 2.0**-8),
        (np.append(FLOAT16, 65520), "bf16", 2.0**-8),
        (np.append(BFLOAT16, 3.4e38), "f32", 0),
        (np.append(BFLOAT16, 1e-39), "f32", 0),
        (FLOAT16[:3], "f32", 0),
    ],
)
def test_scales_take_the_type_of_16_bits_whose_normal_numbers_reach_them(scale, dtype, error):
    given = on_grid(scale)
    found = short_scales(given)
    assert found.scale_dtype == dtype
    assert np.array_equal(found.codes, given.codes)
    assert np.abs(found.scale / given.scale - 1).max() <= error
    assert (found.scale >= SMALLEST.get(dtype, 0)).all()
    assert np.array_equal(short_scales(found).scale, found.scale)


@pytest.mark.parametrize(
    ("offset", "dtype"), [(0.37, "f16"), (0.0, "f16"), (1e-7, "f16"), (7e4, "bf16"), (3.4e38, "f32")]
)
def test_offsets_are_as_short_as_the_scales(offset, dtype):
    codes, points = RNG.integers(0, 4, 90).astype(np.uint8), np.linspace(0, 1, 4).astype(np.float32)
    scale, offsets = np.linspace(0, -0.9, 9).astype(np.float32), np.full(9, offset, np.float32)
    given = Codebook(codes, points, scale, offsets, PerBucket(size=10))
    found = short_scales(given)
    assert found.scale_dtype == dtype
    assert np.abs(found.dense() - given.dense()).max() <= 2.0**-8 * (abs(offset) + 0.9)
    # A bucket of one value has no range, and keeps none.
    assert found.scale[0] == 0


def test_what_a_mask_is_over_is_shortened_and_other_tensors_are_not():
    inner = Codebook(np.zeros(90, np.uint8), *[np.full(9, 0.3, np.float32)] * 3, PerBucket(size=10))
    found = short_scales(Sparse(np.arange(180) % 2 == 0, inner))
    assert found.values.scale_dtype == "f16"
    for tensor in (
        Dense(values()),
        Quantized(np.zeros(9, np.int8), np.ones(1, np.float32), Scheme(bits=2, granularity=PerTensor())),
    ):
        assert short_scales(tensor) is tensor


def halves_of(artifact):
    return {
        record.name: record.value.scale.dtype
        for record in artifact.manifest.tensors
        if record.value.kind in ("quantized", "codebook") and len(record.shape) > 1
    }


@pytest.mark.parametrize(
    ("grid", "per_scale", "kind"),
    [
        (Lsq(bits=4), 2, Quantized),
        (StraightThrough(bits=4), 2, Quantized),
        (Lsq(bits=4, offset=True), 4, Codebook),
        (Linear(bits=4, granularity="bucket:16"), 4, Codebook),
    ],
)
def test_a_file_with_scales_of_16_bits_is_smaller_and_computes_nearly_the_same(grid, per_scale, kind):
    whole, first, _ = packed(grid, Narrow())
    short, found, wanted = packed(grid, Narrow(scales=16))
    assert (whole.version, short.version) == ("1.0", "1.1")
    weight = short.tensor("conv.weight")
    assert isinstance(weight, kind)
    assert np.array_equal(weight.codes, whole.tensor("conv.weight").codes)
    assert halves_of(short) == {"conv.weight": "f16", "head.weight": "f16"}
    # All but what two records of a type take.
    saved = per_scale * sum(short.tensor(name).scale.size for name in halves_of(short))
    assert saved - 24 <= whole.file_bytes - short.file_bytes
    assert 0 < np.abs(found - first).max() < 2e-3 * np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()


def test_scales_are_rounded_after_batch_norms_are_folded():
    learner = fresh(width=16)
    with torch.no_grad():
        for norm in (learner.module.norm1, learner.module.norm2):
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(-2, 2)
    for rule in (Lsq(bits=3), Narrow(scales=16)):
        learner.attach(rule.attach(learner))
    piece = learner.deployed()
    baked = learner.baked()
    factors = piece.traced.folding.factors
    assert set(factors) == {"first.weight", "second.weight"}
    for name, (factor, _) in factors.items():
        assert piece.tensors[name].scale_dtype == "f16"
        exact = baked[name].scale * np.abs(factor)
        assert np.abs(piece.tensors[name].scale / exact - 1).max() <= 2.0**-11 * 1.001
        assert np.array_equal(np.abs(piece.tensors[name].codes), np.abs(baked[name].codes))


def integers(*rules):
    """A trained learner's workpiece, its session, and what both compute."""
    learner = fresh(width=16)
    x = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        learner.module.norm1.running_mean.uniform_(-0.3, 0.3)
        learner.module.norm2.running_mean.uniform_(-0.3, 0.3)
    for rule in rules:
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    for constraint in learner.constraints:
        graph(x)
        constraint.sync(lambda tensor: tensor.clone())
    piece = learner.deployed()
    session = Session(pack(piece.contents(Use())))
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
    return piece, session, session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name], wanted


@pytest.mark.parametrize("grid", [StraightThrough(bits=8, activations=8), Lsq(bits=4, activations=8)])
def test_integer_layers_stay_in_integers_with_scales_of_16_bits(grid):
    whole, before, _, _ = integers(grid, Narrow())
    piece, session, found, wanted = integers(grid, Narrow(scales=16))
    assert set(session.integer_layers()) == set(before.integer_layers()) != set()
    assert {"first.weight", "second.weight"} <= {
        n for n, t in piece.tensors.items() if getattr(t, "scale_dtype", "") == "f16"
    }
    assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    biases = {name: tensor for name, tensor in piece.tensors.items() if isinstance(tensor, Dense)}
    assert set(biases) == {name for name, tensor in whole.tensors.items() if isinstance(tensor, Dense)} != set()
    for name, tensor in biases.items():
        # In whole steps of the rounded scales, and within half of one of what was trained.
        trained = piece.traced.state()[name].numpy()
        assert not np.array_equal(tensor.dense(), whole.tensors[name].dense())
        scale = piece.tensors[f"{name.rpartition('.')[0]}.weight"].scale
        steps = max(float(each.scale) for each in piece.activations.values()) * scale
        assert (np.abs(tensor.dense() - trained) <= 0.501 * steps).all()


def test_scales_of_32_bits_are_the_default_and_change_nothing():
    assert Narrow().describe() == Narrow(scales=32).describe() == {"name": "narrow"}
    artifact = packed(Lsq(bits=4), Narrow())[0]
    assert artifact.version == "1.0"
    assert set(halves_of(artifact).values()) == {"f32"}
