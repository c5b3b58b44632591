"""Fake quantization equals the grids it stands for, and masks gradients at their ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attar._src.artifact.manifest import Activation
from attar._src.core.scheme import PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import round_to_grid
from attar._src.methods.quantize.qat import fake_quantize
from attar._src.work.compressed_model import Round

FORMATS = (torch.contiguous_format, torch.channels_last)


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(axis=0), PerChannel(axis=1), PerGroup(axis=0, size=6)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_weight_is_what_is_stored(bits: int, granularity: PerTensor | PerChannel | PerGroup) -> None:
    w = _numbers(12, 6, 3, 3)
    scheme = Scheme(bits=bits, granularity=granularity)
    index = granularity.index(tuple(w.shape))
    scales = np.random.default_rng(1).uniform(0.01, 0.8, granularity.count(tuple(w.shape))).astype(np.float32)
    made = fake_quantize.fake_quantize_weight(
        w, torch.from_numpy(scales)[torch.from_numpy(index)], scheme.qmin, scheme.qmax
    )
    assert np.array_equal(made.numpy(), round_to_grid(w.numpy(), scales, None, scheme).dense())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.integers(2, 8),
)
def test_any_weight_is_what_is_stored(values: list[float], scale: float, bits: int) -> None:
    scheme = Scheme(bits=bits, granularity=PerTensor())
    halves = [scale * (code + 0.5) for code in range(-4, 4)]
    w = np.array([*values, *halves], np.float32)
    made = fake_quantize.fake_quantize_weight(torch.from_numpy(w), torch.tensor(scale), scheme.qmin, scheme.qmax)
    assert np.array_equal(made.numpy(), round_to_grid(w, np.array([scale], np.float32), None, scheme).dense())


def test_the_gradient_of_a_weight_passes_within_the_range_only() -> None:
    scale = torch.tensor([[0.1], [0.5]])
    top = 7 * scale
    ends = torch.cat([-top, top], 1)
    beyond = torch.nextafter(ends, ends * 2)
    w = torch.cat([ends, beyond, 0.3 * ends, 3 * ends], 1).requires_grad_()
    fake_quantize.fake_quantize_weight(w, scale, -7, 7).backward(torch.full_like(w, 2.5))
    assert w.grad is not None
    assert w.grad.tolist() == [[2.5, 2.5, 0, 0, 2.5, 2.5, 0, 0]] * 2


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("bits", "zero"), [(4, 0), (4, 6), (8, 0), (8, 131), (2, 3)])
def test_a_value_is_what_the_simulation_rounds_to(bits: int, zero: int, memory_format: torch.memory_format) -> None:
    x = _numbers(5, 7, 6, 4).contiguous(memory_format=memory_format)
    scale = float(np.float32(4.0 / (2**bits - 1)))
    rounding = Round(Activation(value="x", bits=bits, scale=scale, zero_point=zero))
    made = fake_quantize.fake_quantize_activation(x, torch.tensor(scale), torch.tensor(float(zero)), 0, 2**bits - 1)
    assert torch.equal(made, rounding(x))
    assert made.stride() == x.stride()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_values_are_rounded_in_float32(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    # Longer than one chunk, and the last chunk is a short one.
    x = _numbers(3, 16, 83, 85).to(dtype).contiguous(memory_format=memory_format)
    scale, zero = torch.tensor(0.013), torch.tensor(120.0)
    made = fake_quantize.fake_quantize_activation(x, scale, zero, 0, 255)
    assert made.dtype is dtype
    assert made.stride() == x.stride()
    assert torch.equal(made, fake_quantize.fake_quantize_activation(x.float(), scale, zero, 0, 255).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (4, 5)])
def test_values_of_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = _numbers(*shape).to(dtype).requires_grad_()
    made = fake_quantize.fake_quantize_activation(x, torch.tensor(0.2), torch.tensor(8), 0, 15)
    made.sum().backward()
    assert made.shape == x.shape
    assert x.grad is not None
    assert x.grad.dtype is dtype
    assert torch.equal(made, ((x.float() / 0.2).round().clamp(-8, 7) * 0.2).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_not_dense_in_memory(dtype: torch.dtype) -> None:
    x = _numbers(6, 8, 4).to(dtype)
    scale, zero = torch.tensor(0.2), torch.tensor(8)
    for view in (x[:, ::2], x.transpose(0, 2), x[2:, 1:], x[:1].expand(6, 8, 4)):
        assert torch.equal(
            fake_quantize.fake_quantize_activation(view, scale, zero, 0, 15),
            fake_quantize.fake_quantize_activation(view.clone(), scale, zero, 0, 15),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_of_a_value_passes_within_the_range_only(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    scale, zero = torch.tensor(0.25), torch.tensor(5)
    x = (2 * _numbers(4, 3, 8, 8)).to(dtype).contiguous(memory_format=memory_format)
    x[0, 0, 0, :4] = torch.tensor([-1.25, 2.5, -1.2578125, 2.515625])  # the ends and the bfloat16 next to each
    x.requires_grad_()
    grad = _numbers(4, 3, 8, 8, seed=1).to(dtype)
    fake_quantize.fake_quantize_activation(x, scale, zero, 0, 15).backward(grad)
    inside = (x >= -1.25) & (x <= 2.5)
    assert x.grad is not None
    assert inside.any()
    assert not inside.all()
    assert torch.equal(x.grad, grad * inside)
    assert inside[0, 0, 0, :4].tolist() == [True, True, False, False]


def test_zero_is_within_the_range_after_a_relu() -> None:
    x = torch.zeros(3, requires_grad=True)
    fake_quantize.fake_quantize_activation(x, torch.tensor(0.1), torch.tensor(0), 0, 15).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]


def test_under_autocast_values_stay_narrow() -> None:
    layer = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        x = layer(_numbers(3, 4))
        made = fake_quantize.fake_quantize_activation(x, torch.tensor(0.1), torch.tensor(8), 0, 15)
    made.float().sum().backward()
    assert made.dtype is torch.bfloat16
    assert layer.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_are_float32_and_without_gradient(dtype: torch.dtype) -> None:
    x = _numbers(3, 5).to(dtype).requires_grad_()
    low, high, left_out = fake_quantize.activation_extremes(x)
    assert left_out == 0
    assert (float(low), float(high)) == (float(x.detach().min()), float(x.detach().max()))
    assert low.dtype is high.dtype is torch.float32
    assert not low.requires_grad
    assert not high.requires_grad
