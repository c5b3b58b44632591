"""Schemes and granularities of its own for each weight under a target."""

import numpy as np
import pytest
from tests.methods.test_allocate import packed, trained  # noqa: F401 - a fixture

import attar
from attar._src.core.errors import SpecError
from attar._src.core.tensors import Quantized
from attar._src.methods.allocate.level import Level
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.ptq.weight_solvers import alternative_levels


def test_alternatives_reach_what_affine_grids_do_not(trained):  # noqa: F811
    net, x, _ = trained
    with pytest.raises(SpecError, match="nearest target is max_bytes=") as refused:
        attar.quantize(net, x, max_bytes=200, scales="absmax", tolerance=None)
    nearest = int(str(refused.value).partition("max_bytes=")[2].partition(",")[0])
    target = {"max_bytes": nearest - 10, "alternatives": ["binary"]}
    given = attar.quantize(net, x, **target, scales="absmax", tolerance=None)
    assert len(packed(given)) <= nearest - 10
    assert "binary" in given.compressed.schemes.values()
    assert "1 binary" in given.compressed.notes["bits"]
    binary = [given.compressed.tensors[name] for name, of in given.compressed.schemes.items() if of == "binary"]
    assert all(len(np.unique(np.abs(each.codes))) == 1 for each in binary)


def test_a_weight_has_the_levels_and_the_granularity_of_its_own(trained):  # noqa: F811
    net, x, _ = trained
    target = {"max_bytes": 2000, "alternatives": ["ternary", "group:4"]}
    stage = PostTrainingQuantize(scales="gptq", bits=target)
    result = attar.quantize(net, x, scales="gptq", max_bytes=2000, alternatives=("ternary", "group:4"), tolerance=None)
    at = Level(3, granularity="group:4")
    assert stage.grid_at(at).granularity.size == 4
    assert stage.grid_at(Level(3)).granularity != stage.grid_at(at).granularity
    for name, tensor in result.compressed.tensors.items():
        if result.compressed.schemes.get(name) == "ternary":
            assert isinstance(tensor, Quantized)
            assert set(np.unique(tensor.codes)) <= {-1, 0, 1}


def test_levels_of_alternatives():
    found = alternative_levels(["binary", "ternary", "codebook", "group:32"], symmetric=True)
    assert [str(each) for each in found][:3] == ["1 binary", "2 ternary", "1 codebook"]
    assert Level(4, granularity="group:32") in found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_bytes": 2000, "alternatives": ["kodebook"]}, "did you mean .codebook"),
        ({"max_bytes": 2000, "alternatives": ["group"]}, "group:64"),
        ({"max_bytes": 2000, "alternatives": ["codebook"], "symmetric": False}, "no zero points"),
        ({"alternatives": ["codebook"]}, "are for a target"),
        ({"size": 3, "sensitivity": "t.json", "alternatives": ["codebook"]}, "levels of its own"),
    ],
)
def test_what_alternatives_cannot_be(trained, options, said):  # noqa: F811
    net, x, _ = trained
    with pytest.raises(SpecError, match=said):
        attar.quantize(net, x, scales="gptq", **options)
