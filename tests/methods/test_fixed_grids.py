"""Training on after post-training quantization: the grids stay, codes follow the weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.methods.toys import data, fresh
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerTensor
from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse
from attar._src.methods.prune.prune import Prune
from attar._src.methods.quantize.fixed_grids import FixedAffineGrid, FixedCodebook, FixedLevels, adopt
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.constraint import Progress
from attar._src.work.context import Context, Trial
from attar._src.work.learner import Learner

GIVEN = Context(CalibrationInputs(((data(64)[0],),)))


def quantized(learner, **fields):
    before = learner.deployed(fold=False)
    after = PostTrainingQuantize(**fields).run(before, GIVEN)
    adopt(learner, before, after)
    return after


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"bits": 4}, FixedAffineGrid),
        ({"bits": 3, "symmetric": False}, FixedAffineGrid),
        ({"bits": 4, "granularity": "group:16", "scales": "mse"}, FixedAffineGrid),
        ({"bits": 4, "granularity": "bucket:32"}, FixedAffineGrid),
        ({"bits": 2, "granularity": "bucket:32", "scales": "minmax"}, FixedCodebook),
        ({"bits": 1, "scheme": "binary"}, FixedLevels),
        ({"bits": 2, "scheme": "codebook"}, FixedLevels),
        ({"bits": 2, "scheme": "ternary"}, FixedAffineGrid),
        ({"bits": 4, "equalize": True}, FixedAffineGrid),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_was_quantized_stays_to_the_bit(fields, kind):
    learner = fresh()
    after = quantized(learner, correct_bias=False, **fields)
    stored = learner.compressed_weights()
    assert set(stored) == set(learner.weights)
    for name, tensor in stored.items():
        (parametrization,) = learner.parametrizations(name)
        assert isinstance(parametrization, kind)
        assert np.array_equal(tensor.dense(), after.tensors[name].dense())
        read = parametrization(learner.tensor(name))
        assert np.array_equal(read.detach().numpy(), tensor.dense())
        read.sum().backward()
        assert learner.tensor(name).grad.abs().max() > 0


@pytest.mark.parametrize("fields", [{}, {"keep": ("0",)}, {"layers": ("2", "5")}], ids=str)
def test_what_was_equalized_is_trained_as_it_is(fields):
    """Guards against a training that goes on from the weights or biases before equalization, that refuses weights which
    are equalized and stay in floating point, and against finding that out only in the run."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4))
    x = data(16)[0]
    captured = capture(net, (x,))
    learner = Learner(net, captured, deploy_graph(net, captured))
    stage = PostTrainingQuantize(bits=8, equalize=True, **fields)
    before = learner.deployed(fold=False)
    after = stage.run(before, GIVEN)
    assert isinstance(after.tensors["0.weight"], Dense if fields else Quantized)
    tried = stage.try_on(before, Trial(Batch((x,), None), {}))
    assert {name: type(tensor) for name, tensor in tried.tensors.items() if "weight" in name} == {
        name: type(tensor) for name, tensor in after.tensors.items() if "weight" in name
    }
    adopt(learner, before, after)
    wanted, got = after.simulate()(x), learner.deployed(fold=False).simulate()(x)
    assert torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max()))


def test_codes_follow_the_weights_and_scales_stay():
    learner = fresh()
    after = quantized(learner, bits=4)
    with torch.no_grad():
        learner.tensor("first.weight").mul_(0.5)
    moved, was = learner.compressed_weights()["first.weight"], after.tensors["first.weight"]
    assert isinstance(moved, Quantized)
    assert np.array_equal(moved.scale, was.scale)
    assert not np.array_equal(moved.codes, was.codes)


def test_activations_keep_their_grids_in_the_file():
    learner = fresh()
    after = quantized(learner, activations=8)
    done = learner.deployed()
    assert done.main.activations
    assert left_in_floating_point(done) == {}
    assert {grid.scale for grid in done.main.activations.values()} <= {
        grid.scale for grid in after.main.activations.values()
    }


def test_corrected_biases_are_trained_on_from():
    learner, plain = fresh(), dict(fresh(1).module.named_parameters())
    after = quantized(learner, bits=2)
    stored = after.tensors["head.bias"].dense()
    assert not np.array_equal(stored, plain["head.bias"].detach().numpy())
    assert np.array_equal(learner.module.head.bias.detach().numpy(), stored)


def test_pruned_weights_stay_pruned_and_a_later_rule_takes_over():
    learner = fresh()
    learner.attach(Prune(sparsity=0.5, shape="once").attach(learner))
    learner.update(Progress(0, 1))
    learner.finalize()
    quantized(learner, bits=4)
    weight = learner.tensor("first.weight")
    with torch.no_grad():
        weight += 0.1
    zeros = learner.compressed_weights()["first.weight"].codes == 0
    assert zeros.mean() >= 0.5
    learner.attach(Lsq(bits=2).attach(learner))
    assert [type(each).__name__ for each in learner.parametrizations("first.weight")] == ["Mask", "LsqWeight"]


def test_only_what_a_stage_changed_is_taken():
    learner = fresh()
    quantized(learner, layers=("first",))
    assert not learner.parametrizations("head.weight")
    later = quantized(learner, bits=8, layers=("head",))
    assert later.tensors["first.weight"].scheme.bits == 4
    assert {n: len(learner.parametrizations(n)) for n in ("first.weight", "head.weight")} == {
        "first.weight": 1,
        "head.weight": 1,
    }


def test_a_form_that_cannot_be_trained_is_refused():
    learner = fresh()
    before = learner.deployed(fold=False)
    mask = np.ones(tuple(learner.tensor("head.weight").shape), bool)
    after = before.done({}, tensors={"head.weight": Sparse(mask, Dense(np.zeros(mask.size, np.float32)))})
    with pytest.raises(SpecError, match=r"'head\.weight' is stored as Sparse"):
        adopt(learner, before, after)


def test_codes_under_a_mask_are_masked_and_counted():
    learner = fresh()
    learner.attach(Prune(sparsity=0.5).attach(learner))
    learner.update(Progress(1, 1))
    before = learner.deployed(fold=False)
    after = PostTrainingQuantize(bits=4, correct_bias=False).run(before, GIVEN)
    tensor = after.tensors["second.weight"]
    held = tensor.codes == 0
    # A solver that compensates, as GPTQ does, moves pruned elements off zero.
    codes = np.where(held, 1, tensor.codes).astype(np.int8)
    moved = replace(
        after, tensors={**after.tensors, "second.weight": replace(tensor, codes=codes)}, warnings=("Look.",)
    )
    adopt(learner, before, moved)
    assert np.array_equal(learner.compressed_weights()["second.weight"].codes, tensor.codes)
    masked = int((before.tensors["second.weight"].dense() == 0).sum())
    assert learner.warnings[0] == "Look."
    assert f"'second.weight': the mask of an earlier stage sets {masked} of its" in learner.warnings[1]
    assert learner.deployed().warnings == tuple(learner.warnings)


def test_points_in_any_order_are_read_at_the_nearest():
    points = np.array([1.0, -1.0, 0.25], np.float32)
    one = np.ones(1, np.float32)
    codes = np.array([[0, 1, 2]], np.uint8)
    held = FixedCodebook(Codebook(codes, points, one, 0 * one, PerTensor()))
    x = torch.tensor([[0.9, -0.3, -0.4]])
    assert held(x).tolist() == [[1.0, 0.25, -1.0]]
    assert held.to_compressed(x).codes.tolist() == [[0, 2, 1]]
    assert np.array_equal(held.to_compressed(x).dense(), held(x).numpy())
