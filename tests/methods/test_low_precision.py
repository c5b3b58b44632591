import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.methods.toys import fresh, held_to
from torch import nn

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.manifest import ScaleStream
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.scheme import PerBucket, PerChannel, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse
from attar._src.methods.quantize.low_precision import LowPrecision, to_low_precision, with_16_bit_scales
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.polino.uniform import Uniform
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import FileInfo
from attar._src.work.learner import Learner

RNG = np.random.default_rng(0)


def values(scale=1.0, count=100):
    return (RNG.normal(size=count) * scale).astype(np.float32)


@pytest.mark.parametrize(("scale", "kind"), [(1.0, "f16"), (1e30, "bf16"), (1e-12, "bf16"), (1e-3, "f16")])
def test_the_nearer_of_the_two_halves(scale, kind):
    given = values(scale)
    found = to_low_precision(given, 16)
    assert isinstance(found, Dense)
    assert found.dtype == kind
    assert np.abs(found.dense() - given).max() <= np.abs(given).max() * 2.0**-8


def test_bfloat16_rounds_to_nearest_even_as_torch_does():
    given = np.concatenate([values(1e30, 1000), np.array([1e38, -1e-38, 0.0], np.float32)])
    assert np.array_equal(to_low_precision(given, 16).dense(), torch.from_numpy(given).bfloat16().float().numpy())


def test_eight_bits_lie_on_a_grid_over_the_tensors_range():
    given = values()
    found = to_low_precision(given, 8)
    assert isinstance(found, Quantized)
    assert np.abs(found.dense() - given).max() <= np.abs(given).max() / 127 * 0.501


def test_one_large_value_does_not_round_the_others_to_nothing():
    # What a channel that never fires did to the batch-norm of a real network.
    given = np.append(values(0.05) + np.float32(0.3), np.float32(104.0))
    found = to_low_precision(given, 8)
    assert isinstance(found, Dense)
    assert np.abs(found.dense() - given).max() <= 2.0**-11 * 104
    assert np.abs(found.dense() - given)[:-1].max() <= 2.0**-11


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_what_is_narrow_survives_exactly(bits, scale):
    once = to_low_precision(values(scale), bits).dense()
    assert np.array_equal(to_low_precision(once, bits).dense(), once)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e-30])
def test_one_value_throughout_is_kept_exactly_and_takes_no_bits(bits, value):
    given = np.full(300, value, np.float32)
    found = to_low_precision(given, bits)
    assert isinstance(found, Quantized)
    assert np.array_equal(found.dense(), given)


@pytest.mark.parametrize("given", [np.array([1.0, np.inf], np.float32), np.float32(2.5).reshape(()), values(count=0)])
def test_what_cannot_be_narrowed_stays(given):
    found = to_low_precision(given, 8)
    assert found.dtype == "f32"
    assert np.array_equal(found.dense(), given)


def test_a_vector_of_bfloat16_that_would_be_infinite_stays_finite():
    assert np.isfinite(to_low_precision(np.array([3.4e38, 1.0], np.float32), 16).dense()).all()


class Behind(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.norm(torch.relu(self.conv(x))).mean((2, 3)))


@functools.cache
def _traced():
    torch.manual_seed(0)
    module, x = Behind(), torch.randn(4, 2, 8, 8)
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    captured = capture(module, (x,))
    return module, x, captured, deploy_graph(module, captured), copy.deepcopy(module.state_dict())


def packed(*rules, small=None):
    module, x, captured, traced, state = _traced()
    module.load_state_dict(state)
    if small is not None:
        with torch.no_grad():
            # Every other channel hardly varies.
            module.conv.weight[::2] *= small
            module.norm.running_var[::2] *= small**2
            for mean in (module.conv.bias, module.norm.running_mean):
                mean[::2] = 0
    learner = Learner(module, captured, traced)
    for rule in rules:
        learner.attach(rule.attach(learner))
    data = pack(learner.deployed().contents(FileInfo()))
    session = Session(data)
    found = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        return open_artifact(data), found, learner.graph(train=False)(x).numpy()


def test_a_file_in_fewer_bits_is_smaller_and_computes_nearly_the_same():
    sizes = []
    for rules in ((), (LowPrecision(),), (LowPrecision(bits=8),)):
        artifact, found, wanted = packed(Lsq(bits=4), *rules)
        assert (
            np.abs(found - wanted).max() < (0.05 if rules == (LowPrecision(bits=8),) else 5e-3) * np.abs(wanted).max()
        )
        sizes.append(inspect_artifact(artifact)["file_bytes"])
    # A batch-norm of 64 channels: from 16 bytes a channel to 4.
    assert sizes[0] - sizes[1] > 64 * 12
    assert sizes[2] < sizes[1]


def test_batch_norms_become_two_vectors_unless_they_shall_be_trained_on():
    merged, kept = packed(LowPrecision())[0], packed(LowPrecision(merge=False))[0]
    assert {"norm.weight", "norm.bias"} <= set(merged.names)
    assert "norm.running_var" not in merged.names
    assert "norm.running_var" in kept.names
    assert kept.tensor("norm.running_var").dtype == "f16"


def test_a_small_variance_is_not_rounded_to_zero():
    artifact, found, wanted = packed(Lsq(bits=8), LowPrecision(bits=8, merge=False), small=0.03)
    assert isinstance(artifact.tensor("norm.running_var"), Dense)
    assert isinstance(artifact.tensor("norm.weight"), Quantized)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_what_integer_kernels_add_stays_as_they_need_it():
    learner = fresh()
    x = torch.randn(8, 2, 8, 8)
    held_to(learner, (StraightThrough(bits=8, activations=8), LowPrecision(bits=8)), x)
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
        # Numbers that are subnormal in half precision: as far as they are no coarser than bfloat16.
        (np.append(FLOAT16, 1.001 * 2.0**-15), "f16", 2.0**-10),
        (np.append(FLOAT16, 1.001 * 2.0**-17), "f16", 2.0**-8),
        (np.append(FLOAT16, 1.004 * 2.0**-18), "bf16", 2.0**-8),
        (np.append(FLOAT16, 2.0**-26), "bf16", 2.0**-8),
        (np.append(FLOAT16, 65520), "bf16", 2.0**-8),
        (BFLOAT16, "bf16", 2.0**-8),
        (np.append(BFLOAT16, 3.4e38), "f32", 0),
        (np.append(BFLOAT16, 1.001e-40), "f32", 0),
        (FLOAT16[:3], "f32", 0),
    ],
)
def test_scales_take_half_precision_where_it_is_as_near_as_bfloat16(scale, dtype, error):
    given = on_grid(scale)
    found = with_16_bit_scales(given)
    assert found.scale_dtype == dtype
    assert np.array_equal(found.codes, given.codes)
    moved = np.abs(found.scale / given.scale - 1)
    assert moved.max() <= error
    assert (moved[:-1] <= min(error, 2.0**-11 if dtype == "f16" else error)).all()
    assert np.array_equal(with_16_bit_scales(found).scale, found.scale)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("live", [FLOAT16, np.geomspace(1e-6, 1e-3, 50), np.full(50, 1e-20)])
def test_a_channel_that_is_switched_off_has_no_say(symmetric, live):
    scheme = Scheme(bits=4, symmetric=symmetric, granularity=PerChannel())
    scale = np.append(live, [2.0**-126, 2.0**-126]).astype(np.float32)
    zero_point = None if symmetric else RNG.integers(0, 16, 52).astype(np.uint8)
    codes = RNG.integers(scheme.qmin, scheme.qmax + 1, (52, 5)).astype(scheme.code_dtype)
    zero = np.int64(0) if symmetric else zero_point[:, None]
    codes[:50, 0] = np.where(zero == 0, 1, 0) if symmetric else np.where(zero[:50, 0] == 0, 1, 0)
    codes[50:] = 0 if symmetric else zero[50:]
    given = Quantized(codes, scale, scheme, zero_point)
    found, alone = with_16_bit_scales(given), with_16_bit_scales(on_grid(live))
    assert found.scale_dtype == alone.scale_dtype != "f32"
    assert np.array_equal(found.scale[:50], alone.scale)
    assert not found.dense()[50:].any()
    # No coarser than the others: the bias of such a channel lies on steps of it.
    assert (found.scale[50:] == max(alone.scale.max(), 2.0**-14)).all()


def test_a_weight_of_zeros_alone_has_scales_of_16_bits():
    scale, scheme = np.full(9, 2.0**-126, np.float32), Scheme(bits=2, granularity=PerChannel())
    found = with_16_bit_scales(Quantized(np.zeros((9, 3), np.int8), scale, scheme))
    assert (found.scale_dtype, set(found.scale)) == ("f16", {np.float32(2.0**-14)})


@pytest.mark.parametrize(
    ("offset", "levels", "dtype"),
    [
        (0.37, 4, "f16"),
        (0.0, 4, "f16"),
        (-0.05, 256, "f16"),
        (1e-7, 4, "bf16"),  # of a bucket of one value, which has no step to compare it with
        (30.0, 4, "f16"),
        (5.001, 16, "f32"),  # a fifth of a step
        (40.0, 16, "f32"),
        (7e4, 4, "f32"),
        (7e4, 2, "f32"),
        (3.39e38, 4, "f32"),
    ],
)
def test_offsets_move_by_an_eighth_of_a_step_at_most(offset, levels, dtype):
    codes, points = RNG.integers(0, levels, 90).astype(np.uint8), np.linspace(0, 1, levels).astype(np.float32)
    scale, offsets = np.linspace(0, -0.9, 9).astype(np.float32), np.linspace(offset, 1.001 * offset, 9)
    given = Codebook(codes, points, scale, offsets.astype(np.float32), PerBucket(size=10))
    found = with_16_bit_scales(given)
    assert found.scale_dtype == dtype
    assert (np.abs(found.offset - given.offset)[1:] <= np.abs(scale[1:]) / (levels - 1) / 8).all()
    moved = np.abs(found.dense() - given.dense()).reshape(9, 10)[1:]
    assert (moved.max(1) <= np.abs(scale[1:]) * (1 / 8 / (levels - 1) + 2.0**-11) + 1e-6).all()
    # A bucket of one value has no range, and keeps none.
    assert found.scale[0] == 0
    assert np.abs(found.offset[0] - given.offset[0]) <= 2.0**-8 * abs(offset)


@pytest.mark.parametrize(("size", "dtype"), [(1e-5, "bf16"), (1e5, "bf16"), (0.1, "f16")])
def test_offsets_of_few_steps_are_as_narrow_as_the_scales(size, dtype):
    codes, points = RNG.integers(0, 4, 90).astype(np.uint8), np.arange(-2, 2).astype(np.float32)
    scale, offset = ((size * RNG.uniform(low, 1.1, 9)).astype(np.float32) for low in (0.1, -1.1))
    given = Codebook(codes, points, scale, offset, PerBucket(size=10))
    found = with_16_bit_scales(given)
    assert found.scale_dtype == dtype
    assert (np.abs(found.dense() - given.dense()) <= scale.repeat(10) / 7).all()


@pytest.mark.parametrize(("offset", "dtype"), [(0.37, "f16"), (400.1, "f32")])
def test_points_that_coincide_are_one(offset, dtype):
    points, offsets = np.array([0, 0.5, 0.5, 1], np.float32), np.full(9, offset, np.float32)
    given = Codebook(np.zeros(90, np.uint8), points, np.full(9, 0.9, np.float32), offsets, PerBucket(size=10))
    assert with_16_bit_scales(given).scale_dtype == dtype
    # Of a lone point all values of a bucket are one.
    assert with_16_bit_scales(replace(given, points=points[:1])).scale_dtype == "f16"


@pytest.mark.parametrize(("mean", "dtype"), [(0, "f16"), (10, "f32")])
def test_weights_far_from_zero_are_stored_as_they_were_trained(mean, dtype):
    learner = fresh(width=16)
    with torch.no_grad():
        learner.module.head.weight.normal_(mean, 0.05)
    for rule in (Uniform(bits=8, granularity="bucket:16"), LowPrecision(scale_bits=16)):
        learner.attach(rule.attach(learner))
    trained, found = learner.module.head.weight.detach().numpy(), learner.deployed().tensors["head.weight"]
    assert found.scale_dtype == dtype
    step = found.scale.max() / 255
    assert np.abs(found.dense() - trained).max() <= 0.75 * step


def test_tensors_with_few_scales_or_none_are_left_as_they_are():
    inner = Codebook(np.zeros(90, np.uint8), *[np.full(9, 0.3, np.float32)] * 3, PerBucket(size=10))
    for tensor in (
        Dense(values()),
        Sparse(np.arange(180) % 2 == 0, inner),
        Quantized(np.zeros(9, np.int8), np.ones(1, np.float32), Scheme(bits=2, granularity=PerTensor())),
    ):
        assert with_16_bit_scales(tensor) is tensor


def halves_of(artifact):
    return {
        record.name: record.value.scale.dtype
        for record in artifact.manifest.tensors
        if record.value.kind in ("quantized", "codebook") and len(record.shape) > 1
    }


def scales_of(artifact):
    """The records of all scales and offsets of a file."""
    records = (record.value for record in artifact.manifest.tensors)
    return [stream for value in records for stream in value.streams() if isinstance(stream, ScaleStream)]


@pytest.mark.parametrize(
    ("grid", "per_scale", "kind"),
    [
        (Lsq(bits=4), 2, Quantized),
        (StraightThrough(bits=4), 2, Quantized),
        (Lsq(bits=4, offset=True), 4, Codebook),
        (Uniform(bits=4, granularity="bucket:16"), 4, Codebook),
    ],
)
def test_a_file_with_scales_of_16_bits_is_smaller_and_computes_nearly_the_same(grid, per_scale, kind):
    whole, first, _ = packed(grid, LowPrecision())
    small, found, wanted = packed(grid, LowPrecision(scale_bits=16))
    weight = small.tensor("conv.weight")
    assert isinstance(weight, kind)
    assert np.array_equal(weight.codes, whole.tensor("conv.weight").codes)
    assert halves_of(small) == {"conv.weight": "f16", "head.weight": "f16"}
    # Those of few levels are coded, and take less.
    length = sum(stream.length for stream in scales_of(small))
    count = per_scale // 2 * sum(small.tensor(name).scale.size for name in halves_of(small))
    assert length <= 2 * count
    assert np.abs(found - first).max() < 2e-3 * np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()


def test_scales_are_rounded_after_batch_norms_are_folded():
    learner = fresh(width=16)
    with torch.no_grad():
        for norm in (learner.module.norm1, learner.module.norm2):
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(-2, 2)
    for rule in (Lsq(bits=3), LowPrecision(scale_bits=16)):
        learner.attach(rule.attach(learner))
    piece = learner.deployed()
    baked = learner.compressed_weights()
    factors = piece.main.traced.folding.factors
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
    held_to(learner, rules, x)
    piece = learner.deployed()
    session = Session(pack(piece.contents(FileInfo())))
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
    return piece, session, session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name], wanted


@pytest.mark.parametrize("grid", [StraightThrough(bits=8, activations=8), Lsq(bits=4, activations=8)])
def test_integer_layers_stay_in_integers_with_scales_of_16_bits(grid):
    whole, before, _, _ = integers(grid, LowPrecision())
    piece, session, found, wanted = integers(grid, LowPrecision(scale_bits=16))
    assert set(session.integer_layers()) == set(before.integer_layers()) != set()
    assert {"first.weight", "second.weight"} <= {
        n for n, t in piece.tensors.items() if getattr(t, "scale_dtype", "") == "f16"
    }
    assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    biases = {name: tensor for name, tensor in piece.tensors.items() if isinstance(tensor, Dense)}
    assert set(biases) == {name for name, tensor in whole.tensors.items() if isinstance(tensor, Dense)} != set()
    for name, tensor in biases.items():
        # In whole steps of the rounded scales, and within half of one of what was trained.
        trained = piece.main.traced.state()[name].numpy()
        weight = f"{name.rpartition('.')[0]}.weight"
        same = np.array_equal(piece.tensors[weight].scale, whole.tensors[weight].scale)  # if it is short already
        assert np.array_equal(tensor.dense(), whole.tensors[name].dense()) == same
        scale = piece.tensors[weight].scale
        steps = max(float(each.scale) for each in piece.main.activations.values()) * scale
        assert (np.abs(tensor.dense() - trained) <= 0.501 * steps).all()


def test_scales_of_32_bits_are_the_default_and_change_nothing():
    assert LowPrecision().describe() == LowPrecision(scale_bits=32).describe() == {"name": "low_precision"}
    artifact = packed(Lsq(bits=4), LowPrecision())[0]
    assert set(halves_of(artifact).values()) == {"f32"}


def test_narrow_biases_alone_leave_no_weight_in_floating_point_that_anything_should_have_quantized():
    learner = fresh()
    with torch.no_grad():
        learner.tensor("head.bias").fill_(0.5)
    learner.attach(LowPrecision().attach(learner))
    assert left_in_floating_point(learner.deployed()) == {}
