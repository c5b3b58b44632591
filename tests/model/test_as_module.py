"""A model becomes a float32 module on the CPU; what needs no change is shared with it."""

import pytest
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.forms.as_module import as_module, is_uninitialized
from attar._src.model.trace import trace


class Mixed(nn.Module):
    """Half of it is in half precision; its output layer is tied to its table."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(8, 4).half(), nn.LayerNorm(4), nn.Linear(4, 8, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))
        self.offset = torch.ones(8, dtype=torch.bfloat16)
        self.table.weight.requires_grad_(False)

    def forward(self, ids):
        return self.head(self.norm(self.table(ids).mean(1)) * self.scale) + self.offset


def test_what_is_plain_is_itself():
    module = nn.Linear(2, 2)
    assert as_module(module) == (module, ())
    assert as_module(nn.DataParallel(module)) == (module, ())
    assert as_module(nn.LazyLinear(2))[1] == ()
    assert is_uninitialized(nn.Sequential(nn.LazyLinear(2)))


def test_a_copy_shares_what_needs_no_change_and_keeps_ties():
    model = Mixed().eval()
    module, said = as_module(model)
    kinds = {f"1 tensor of {kind}" for kind in ("float16", "float64", "bfloat16")}
    assert set(said[0].removeprefix("Mixed has ").partition(";")[0].split(", ")) == kinds
    assert said[0].endswith("; it is computed in float32 on the CPU")
    assert module.norm.weight is model.norm.weight
    assert module.head.weight is module.table.weight
    assert (module.table.weight.dtype, module.scale.dtype, module.offset.dtype) == (torch.float32,) * 3
    assert not module.table.weight.requires_grad
    assert isinstance(module.table.weight, nn.Parameter)
    assert module(torch.tensor([[1, 2]])).dtype == torch.float32
    assert model.table.weight.dtype == torch.float16
    assert (module.training, type(module)) == (False, Mixed)


def test_a_module_that_cannot_be_copied_is_named():
    model = nn.Linear(2, 2).half()
    model.lock = iter(())
    model.__deepcopy__ = lambda memo: 1 / 0
    with pytest.raises(
        ModelError, match=r"Linear has 2 tensors of float16 and cannot be copied .*module\.float\(\)\.cpu"
    ):
        as_module(model)


def test_tracing_takes_the_same_forms():
    traced = trace(nn.DataParallel(nn.Linear(3, 2).double()), (torch.randn(2, 3),))
    assert traced.names == ("weight", "bias")
    assert all(each.dtype == torch.float32 for each in traced.state().values())
