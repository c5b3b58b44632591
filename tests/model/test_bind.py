import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attar._src.model.bind import _permutation
from attar._src.model.trace import trace


def made(binding, state):
    """Evaluate a binding as docs/format.md, section 5, says."""
    parts = binding.parts or (None,)
    arrays = []
    for part in parts:
        tensor = state[part.tensor if part else binding.to].numpy()
        if binding.permute is not None:
            tensor = tensor.transpose(binding.permute)
        arrays.append(tensor.reshape(-1)[part.start if part else None : part.stop if part else None])
        shape = tensor.shape
    return np.concatenate(arrays).reshape(binding.shape if binding.shape is not None else shape)


def test_a_transposed_linear_layer_is_a_permutation():
    traced = trace(nn.Linear(5, 7), (torch.randn(2, 3, 5),))
    by_tensor = {(binding.parts[0].tensor if binding.parts else binding.to): binding for binding in traced.bindings}
    assert by_tensor["weight"].permute == (1, 0)
    assert np.array_equal(made(by_tensor["weight"], traced.state()), traced.state()["weight"].numpy().T)


@pytest.mark.parametrize(("kind", "gates", "order"), [(nn.LSTM, 4, (0, 3, 1, 2)), (nn.GRU, 3, (1, 0, 2))])
def test_gates_are_reordered_by_parts(kind, gates, order):
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(3, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    traced = trace(Rnn(), (torch.randn(2, 5, 3),))
    state = traced.state()
    blocks = state["rnn.weight_ih_l0"].numpy().reshape(gates, 4, 3)
    expected = blocks[list(order)].reshape(1, gates * 4, 3)
    arrays = [made(binding, state) for binding in traced.bindings]
    assert any(array.shape == expected.shape and np.array_equal(array, expected) for array in arrays)


def test_equal_weights_are_not_confused():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    for layer in (net[0], net[2]):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    traced = trace(net, (torch.randn(2, 8),))
    assert {binding.to for binding in traced.bindings} == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_factors_that_are_computed_with_stay_in_the_graph_as_they_are():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Parameter(torch.randn(20, 2)), nn.Parameter(torch.randn(2, 20))

        def forward(self, x):
            return x @ (self.down @ self.up)

    traced = trace(Narrow(), (torch.randn(2, 20),))
    assert {binding.to for binding in traced.bindings} == {"down", "up"}
    assert [node.op_type for node in traced.model.graph.node] == ["MatMul", "MatMul"]


@pytest.mark.parametrize("value", [torch.finfo(torch.float32).tiny, 1.2e-38, 1e-38])
def test_a_constant_that_looks_like_a_pattern_is_a_constant(value):
    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.floor = nn.Linear(4, 40), nn.Buffer(torch.full((40,), value))

        def forward(self, x):
            return torch.log(self.layer(x).clamp(min=value) + self.floor.half() + torch.tensor([value] * 40))

    traced = trace(Clamped(), (torch.randn(2, 4),))
    assert all(part.tensor in traced.state() for binding in traced.bindings for part in binding.parts)
    plain = {binding.to for binding in traced.bindings if not binding.parts}
    assert {"layer.bias", "floor"} <= plain
    constants = [*traced.constants.values(), *map(onnx.numpy_helper.to_array, traced.model.graph.initializer)]
    assert any(np.all(constant == np.float32(value)) for constant in constants)


@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=4).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_permutations_are_read_off(case):
    shape, order = tuple(case[0]), tuple(case[1])
    index = np.arange(math.prod(shape)).reshape(shape).transpose(order).reshape(-1)
    found = _permutation(index, shape)
    assert found is not None
    assert np.array_equal(np.arange(index.size).reshape(shape).transpose(found).reshape(-1), index)


def test_what_is_no_permutation_is_none():
    assert _permutation(np.array([0, 2, 1, 3, 5, 4]), (2, 3)) is None
