import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.methods.test_ptq import Net
from torch import nn

import attar
from attar._src.core.errors import SpecError
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import Quantized
from attar._src.methods.quantize.fixed_grids import FixedLevels
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.registry import SCHEMES, SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context

CHOICES = [(name, SCHEMES[name].widths[0]) for name in SCHEMES]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CompressedModel.of(trace(Net(), (torch.randn(2, 3, 6, 6),)))


@pytest.fixture(scope="module")
def context():
    torch.manual_seed(1)
    return Context(CalibrationInputs(tuple((torch.randn(32, 3, 6, 6),) for _ in range(4))))


@pytest.mark.parametrize(("name", "bits"), CHOICES)
def test_a_scheme_is_of_the_weights_without_bits_of_their_own(model, context, name, bits):
    """Guards against a scheme at layers that were given 8 bits, as first and last layers are."""
    stage = PostTrainingQuantize(bits=bits, scheme=name, overrides={"first": 8}, activations=8)
    done = stage.run(model, context)
    assert done.tensors["first.weight"].scheme.bits == 8
    assert np.unique(done.tensors["first.weight"].codes).size > 40
    assert all(np.unique(done.tensors[f"{each}.weight"].codes).size <= 2**bits for each in ("second", "head"))
    assert set(done.schemes) == (set() if name == "ternary" else {"second.weight", "head.weight"})


@pytest.mark.parametrize(("name", "bits"), CHOICES)
def test_files_run_in_integers(name, bits, tmp_path):
    """Guards against schemes that would need floating point in a fused run: encoded, decoded, lowered and run."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    x = torch.randn(64, 3, 6, 6)
    result = attar.quantize(net, x, bits=bits, scheme=name, activations=8, tolerance=None)
    report = result.save(tmp_path / "m.attar")
    assert report["parity"]["largest_difference"] <= 0.1 * report["parity"]["largest_output"]
    assert not report["left_in_floating_point"]
    stored = attar.open_artifact(tmp_path / "m.attar")
    for weight in ("0.weight", "2.weight", "5.weight"):
        assert np.array_equal(stored.tensor(weight).codes, result.compressed.tensors[weight].codes)
    assert set(attar.Session(tmp_path / "m.attar", threads=1).integer_layers()) == {"0", "2", "5"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 1}, "take scheme binary or codebook"),
        ({"bits": 3, "scheme": "ternary"}, "has codes of 2 bits, got 3"),
        ({"bits": 8, "scheme": "apot"}, "has codes of 3 to 5 bits, got 8"),
        ({"bits": 2, "scheme": "ternry"}, "no scheme named 'ternry'.*ternary"),
        ({"bits": 2, "scheme": "ternary", "symmetric": False}, "no zero points"),
        ({"bits": 2, "scheme": "ternary", "rate": 0.01}, "minimizes no bits"),
    ],
)
def test_what_does_not_go_with_a_scheme(fields, said):
    with pytest.raises(SpecError, match=said):
        attar.quantize(nn.Linear(4, 2), torch.randn(8, 4), **fields)
    with pytest.raises(ValueError, match=said):
        PostTrainingQuantize(**fields)


def test_a_target_takes_affine_grids():
    with pytest.raises(SpecError, match="choose bits of affine grids"):
        attar.quantize(nn.Linear(4, 2), torch.randn(8, 4), size=3.0, scheme="codebook")


def test_reconstruction_leaves_levels_alone_and_says_so(model, context):
    rounded = PostTrainingQuantize(bits=2, scheme="codebook", overrides={"head": 4}).run(model, context)
    done = Reconstruct(steps=1, batch=16).run(rounded, context)
    assert "by the scheme 'codebook'" in done.record[-1]["left"]["first.weight"]
    assert np.array_equal(done.tensors["first.weight"].codes, rounded.tensors["first.weight"].codes)


def test_training_after_a_scheme_keeps_its_levels():
    """Guards against a training that moves binary weights off their two values."""
    codes = np.array([[-1, 1, 1], [1, -1, -1]], np.int8)
    tensor = Quantized(codes, np.array([0.5, 0.25], np.float32), Scheme(bits=2))
    grid = FixedLevels(tensor)
    weight = torch.tensor([[-0.4, 0.1, 3.0], [0.01, -0.2, -0.02]], requires_grad=True)
    out = grid(weight)
    assert out.tolist() == [[-0.5, 0.5, 0.5], [0.25, -0.25, -0.25]]
    out.sum().backward()
    assert weight.grad.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert np.array_equal(grid.to_compressed(weight).codes, codes)


@pytest.mark.parametrize("scales", [name for name in SOLVERS if name != "minmax"])
@pytest.mark.parametrize("bits", [2, 8])
def test_all_scales_are_powers_of_two(model, context, scales, bits):
    """Guards against one scale that no shift can multiply by, also of weights whose pairs of products were fitted."""
    stage = PostTrainingQuantize(bits=bits, scales=scales, activations=8, power_of_two=True)
    done = stage.run(model, context)
    found = [tensor.scale for tensor in done.tensors.values() if isinstance(tensor, Quantized)]
    found.append(np.array([grid.scale for grid in done.main.activations.values()]))
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in found)


def test_a_solver_that_keeps_no_powers_of_two_is_named(model, context):
    with pytest.raises(SpecError, match="solver 'minmax' found scales that are no powers of two"):
        PostTrainingQuantize(bits=4, scales="minmax", power_of_two=True).run(model, context)


@pytest.mark.parametrize(("scheme", "bits"), [("ternary", 2), ("binary", 1), ("affine", 4), ("apot", 4)])
def test_bits_follow_from_a_scheme_that_has_only_one_form(scheme, bits):
    assert PostTrainingQuantize(scheme=scheme).bits == bits
    with pytest.raises(ValidationError, match="bits"):
        PostTrainingQuantize(scheme=scheme, bits=7 if scheme != "affine" else 1)
