import numpy as np
import pytest
import torch
from tests.methods.toys import fresh
from torch import nn

from attar.artifact.inspect import describe
from attar.artifact.reader import open_artifact
from attar.artifact.writer import pack
from attar.core.tensors import Dense, Quantized
from attar.methods.quantize.lsq import Lsq
from attar.methods.quantize.narrow import Narrow, narrowed
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
