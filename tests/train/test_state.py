import pytest
import torch

from attar.core.errors import AttarError
from attar.train.state import flatten, unflatten


def test_nested_values_come_back():
    given = {0: {"step": torch.tensor(3.0), "none": None}, "betas": (0.9, [True, {}]), "text": "a", "tensor": ()}
    tensors = {}
    packed = flatten(given, "optimizer", tensors)
    assert list(tensors) == ["optimizer.0.step"]
    assert unflatten(packed, tensors) == given


def test_what_is_no_number_string_or_tensor_is_named():
    with pytest.raises(AttarError, match=r"optimizer\.state\.closure is a function"):
        flatten({"state": {"closure": flatten}}, "optimizer", {})
