import numpy as np
import pytest
import torch

from attar._src.methods.quantize.ptq.solvers.zeros import with_zeros
from attar._src.model.statistics import InputHessian
from attar._src.model.weights import Window


@pytest.fixture
def seen():
    """Inputs of 12 channels that are much alike, so that the others can make up for a weight."""
    torch.manual_seed(0)
    x = torch.randn(256, 4) @ torch.randn(4, 12) + 0.2 * torch.randn(256, 12)
    hessian = InputHessian(Window(1, 12))
    hessian.add(x)
    return x.numpy(), {InputHessian: hessian}


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
def test_so_many_are_zero(seen, sparsity):
    weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    for given in (None, seen[1]):
        found = with_zeros(weight, sparsity, given)
        assert found.shape == weight.shape
        assert found.dtype == np.float32
        assert (found == 0).sum() == round(sparsity * 96)


def test_the_others_make_up_for_what_was_removed(seen):
    x, statistics = seen
    weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    blind, seeing = (with_zeros(weight, 0.5, given) for given in (None, statistics))
    errors = [float(((x @ (weight - each).T) ** 2).mean()) for each in (blind, seeing)]
    assert errors[1] < 0.5 * errors[0]
