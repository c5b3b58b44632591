"""Fake quantization: rounding to a grid with a straight-through gradient.

The results equal the grids of ``core.tensors`` to the bit, except for the sign of zeros. The gradient passes unchanged
where a value lies within the grid's range and is zero outside (Bengio et al. 2013, "Estimating or propagating gradients
through stochastic neurons", section 4; Jacob et al. 2018, "Quantization and training of neural networks", section 3).

Memory traffic of activations limits speed, so the forward pass allocates one buffer and works in place, and the
backward pass masks the gradient with a single kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOAT32_CHUNK = 1 << 18  # elements computed at a time in float32: 1 MiB, which fits the cache
_OUTWARD = np.array([-np.inf, np.inf], np.float32)


def fake_quantize_weight(w: Tensor, scale: Tensor, qmin: int | Tensor, qmax: int | Tensor) -> Tensor:
    """Return ``scale * clip(round(w / scale), qmin, qmax)``; ``w`` gets the gradient where it is in range.

    Args:
        w: float32, any shape.
        scale: positive, broadcastable to ``w``; it gets no gradient.
        qmin, qmax: smallest and largest code.

    Example:
        >>> fake_quantize_weight(torch.tensor([0.26, -1.0]), torch.tensor(0.25), -2, 2)
        tensor([ 0.2500, -0.5000])
    """
    rounded: Tensor = _Weight.apply(w, scale.detach(), qmin, qmax)  # type: ignore[no-untyped-call]
    return rounded


def fake_quantize_activation(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """Return ``scale * (clip(round(x / scale) + zero_point, qmin, qmax) - zero_point)``, computed in float32.

    Args:
        x: any shape, float32, bfloat16 or float16, which is also the type of the result.
        scale: float32, positive, 0-d; it gets no gradient.
        zero_point: whole number, 0-d.
        qmin, qmax: smallest and largest code.
    """
    zero = int(zero_point)
    rounded: Tensor = _Value.apply(x, scale.detach(), qmin - zero, qmax - zero)  # type: ignore[no-untyped-call]
    return rounded


def activation_extremes(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return minimum and maximum of ``x`` as 0-d float32 tensors, without gradient, and how many elements are left out.

    NaN and infinities are, unless ``x`` has nothing else.
    """
    low, high = torch.aminmax(x.detach())
    left_out = 0
    if not torch.isfinite(high - low):
        finite = x.detach()[torch.isfinite(x)]
        if finite.numel():
            left_out = x.numel() - finite.numel()
            low, high = torch.aminmax(finite)
    return low.float(), high.float(), left_out


def left_out_warning(value: str, count: int, when: str) -> tuple[str, ...]:
    """Return the sentence that the range of a value left out ``count`` elements, none if it left out none."""
    if not count:
        return ()
    return (
        f"value {value!r}: {count:,} elements {when} were NaN or infinite; its range leaves them out; look at the "
        "inputs (a wholly padded example, the logarithm of zero)",
    )


def pass_inside(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return the gradient where ``low <= x <= high``, with float32 bounds, and zero elsewhere."""
    # hardtanh's range excludes its ends, this one includes them.
    low, high = np.nextafter(np.array([low, high], np.float32), _OUTWARD).tolist()
    inside: Tensor = torch.ops.aten.hardtanh_backward(grad, x, low, high)
    return inside


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, qmin: int, qmax: int) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.range = qmin, qmax
        return (w / scale).round_().clamp_(qmin, qmax).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        w, scale = ctx.saved_tensors
        low, high = ctx.range
        return grads[0] * ((w >= low * scale) & (w <= high * scale)), None, None, None


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)  # costs no memory, as the operator before usually saves it too
        ctx.range = float(low * scale), float(high * scale)
        if x.dtype is torch.float32:
            return (x / scale).round_().clamp_(low, high).mul_(scale)
        x = dense(x)
        out = torch.empty_like(x)
        wide = torch.empty(min(x.numel(), FLOAT32_CHUNK), device=x.device)
        for source, target in zip(flat(x).split(FLOAT32_CHUNK), flat(out).split(FLOAT32_CHUNK), strict=True):
            part = wide[: len(source)].copy_(source)
            target.copy_(part.div_(scale).round_().clamp_(low, high).mul_(scale))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return pass_inside(grads[0], x, *ctx.range), None, None, None


def dense(x: Tensor) -> Tensor:
    """Return ``x``, or a contiguous copy of it unless it is contiguous or channels last."""
    return x if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def laid_out_as(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` in the memory order of a dense tensor of its shape; a copy if it has another."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


def flat(x: Tensor) -> Tensor:
    """Return a view of a dense tensor's elements in memory order."""
    return x.as_strided((x.numel(),), (1,))
