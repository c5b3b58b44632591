import pytest
import torch

from attar._src.core.errors import AttarError
from attar._src.train.optimizer_state import flatten_state, unflatten_state


def test_nested_values_come_back():
    given = {0: {"step": torch.tensor(3.0), "none": None}, "betas": (0.9, [True, {}]), "text": "a", "tensor": ()}
    tensors = {}
    packed = flatten_state(given, "optimizer", tensors)
    assert list(tensors) == ["optimizer.0.step"]
    assert unflatten_state(packed, tensors) == given


def test_what_is_no_number_string_or_tensor_is_named():
    with pytest.raises(AttarError, match=r"optimizer\.state\.closure is a function"):
        flatten_state({"state": {"closure": flatten_state}}, "optimizer", {})
