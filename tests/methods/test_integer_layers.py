"""Biases of integer layers that are stored in fewer bits already."""

import numpy as np
import pytest
import torch
from tests.methods.toys import fresh, held_to

from attar._src.artifact.writer import pack
from attar._src.core.tensors import Dense, Quantized
from attar._src.methods.quantize.low_precision import LowPrecision
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.context import Context

X = torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def begun(size):
    """A module whose biases, once its batch-norms are folded, are of a size."""
    learner = fresh(width=16)
    with torch.no_grad():
        for norm in (learner.module.norm1, learner.module.norm2):
            norm.running_mean.uniform_(-size, size)
        learner.module.head.bias.uniform_(-size, size)
    return learner


def outputs(piece):
    session = Session(pack(piece.contents(FileInfo())))
    (found,) = session.run({session.inputs[0].name: X.numpy()}).values()
    return session, found


@pytest.mark.parametrize(("bits", "size", "kind"), [(16, 0.3, "f16"), (16, 1e-7, "bf16"), (8, 0.3, "codes")])
def test_biases_in_fewer_bits_are_put_on_the_steps_of_integer_layers(bits, size, kind):
    learner = begun(size)
    learner.attach(LowPrecision(bits=bits).attach(learner))
    piece = learner.deployed()
    stored = [tensor for name, tensor in piece.tensors.items() if name.endswith("bias")]
    assert stored
    assert {"codes" if isinstance(tensor, Quantized) else tensor.dtype for tensor in stored} == {kind}
    with torch.no_grad():
        wanted = piece.simulate()(X).numpy()
    done = PostTrainingQuantize(bits=8, activations=8, correct_bias=False).run(
        piece, Context(CalibrationInputs(((X,),)))
    )
    for name, tensor in done.tensors.items():
        if name.endswith("bias"):
            assert isinstance(tensor, Dense)
            assert tensor.dtype == "f32"
            step = 0.51 * max(float(each.scale) for each in done.main.activations.values())
            off = np.abs(tensor.dense() - piece.tensors[name].dense())
            assert (off <= step * done.tensors[name.replace("bias", "weight")].scale).all()
    session, found = outputs(done)
    assert len(session.integer_layers()) == 3
    assert np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("scale_bits", [16, 32])
def test_a_rule_that_trains_grids_and_one_that_narrows_agree_on_the_layers(scale_bits):
    learner = begun(0.3)
    held_to(learner, (Lsq(bits=8, activations=8), LowPrecision(bits=8, scale_bits=scale_bits)), X)
    session, _ = outputs(learner.deployed())
    assert len(session.integer_layers()) == 3


def test_a_channel_that_is_switched_off_leaves_its_layer_in_integers():
    learner = begun(0.3)
    with torch.no_grad():
        learner.module.norm1.weight[3] = 0
        learner.module.norm1.bias[3] = 0.21
    held_to(learner, (Lsq(bits=8, activations=8), LowPrecision(scale_bits=16)), X)
    piece = learner.deployed()
    assert piece.tensors["first.weight"].scale_dtype == "f16"
    assert not piece.tensors["first.weight"].dense()[3].any()
    assert piece.tensors["first.bias"].dense()[3] == pytest.approx(0.21, abs=1e-3)
    session, _ = outputs(piece)
    assert len(session.integer_layers()) == 3
