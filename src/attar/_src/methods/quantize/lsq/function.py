"""Rounding to a learned grid, with gradients to the values, the steps and the offsets.

With ``v = (w - b) / s`` and ``q = clip(round(v), qmin, qmax)`` the result is ``s q + b``, and its derivatives are

| | by w | by s | by b |
|---|---|---|---|
| qmin <= v <= qmax | 1 | q - v | 0 |
| outside | 0 | q | 1 |

(Esser et al. 2020, "Learned step size quantization", section 2.1; Bhalgat et al. 2020, "LSQ+", section 3.1). The
forward pass allocates one buffer, the backward pass one for the values and one for the steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attar._src.methods.quantize.ptq.solvers.solver import TINY
from attar._src.methods.quantize.qat import fake_quantize


def lsq_weight(
    w: Tensor, step: Tensor, offset: Tensor | None, index: Tensor, qmin: int, qmax: int, gradient_scale: float
) -> Tensor:
    """Return ``scale * clip(round((w - offset) / scale), qmin, qmax) + offset`` with ``scale = scale_of_step(step)``.

    Args:
        step, offset: float32 ``(count,)``; no offset is zero.
        index: int64, broadcastable to ``w``: index of an element's step and offset.
        gradient_scale: factor of the gradients of step and offset.
    """
    rounded: Tensor = _Weight.apply(w, step, offset, index, qmin, qmax, gradient_scale)  # type: ignore[no-untyped-call]
    return rounded


def scale_of_step(step: Tensor) -> Tensor:
    """Return ``|step|``, at least ``TINY``."""
    return step.abs().clamp(min=TINY)


def lsq_activation(
    x: Tensor, scale: Tensor, offset: Tensor, zero_point: int, top: int, gradient_scale: float
) -> Tensor:
    """Return ``scale * (clip(round(x / scale) + zero_point, 0, top) - zero_point)``, computed in float32.

    The gradients are those of an offset that is not rounded to ``-scale * zero_point``.

    Args:
        x: any shape, float32, bfloat16 or float16, which is also the type of the result.
        scale, offset: float32, 0-d; the offset is about ``-scale * zero_point``.
        zero_point: 0 to ``top``, the largest code.
        gradient_scale: factor of the gradients of scale and offset.
    """
    rounded: Tensor = _Value.apply(x, scale, offset, zero_point, top, gradient_scale)  # type: ignore[no-untyped-call]
    return rounded


class _Weight(torch.autograd.Function):
    # One node of the autograd graph, because overhead per node dominates on small weights.
    @staticmethod
    def forward(
        ctx: Any, w: Tensor, step: Tensor, offset: Tensor | None, index: Tensor, qmin: int, qmax: int, factor: float
    ) -> Tensor:
        scale, shift = scale_of_step(step)[index], None if offset is None else offset[index]
        ratio = w / scale if shift is None else (w - shift).div_(scale)
        out = ratio.round_().clamp_(qmin, qmax).mul_(scale)
        out = out if shift is None else out.add_(shift)
        ctx.save_for_backward(w, out, step, scale, shift, index)
        ctx.range, ctx.factor = (qmin, qmax), factor
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None, None]:
        w, out, step, scale, shift, index = ctx.saved_tensors
        low, high = (end * scale if shift is None else end * scale + shift for end in ctx.range)
        inside = grads[0] * (w >= low).logical_and_(w <= high)
        # s (q - v) = out - w inside and s q = out - b outside; divided by s after summation.
        steps = (grads[0] * out).addcmul_(inside, w, value=-1).sum_to_size(scale.shape)
        to_offset = None
        if shift is not None:
            outside = (grads[0] - inside).sum_to_size(scale.shape)
            steps -= outside * shift
            to_offset = _sum_by_step(outside.mul_(ctx.factor), index, step)
        sign = step.sgn().mul_(step.abs() >= TINY)
        to_step = _sum_by_step(steps.div_(scale).mul_(ctx.factor), index, step).mul_(sign)
        return inside, to_step, to_offset, None, None, None, None


def _sum_by_step(grad: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Return the sums of a gradient over the elements of each step, ``(count,)``."""
    return torch.zeros_like(like).index_add_(0, index.reshape(-1), grad.reshape(-1))


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, _: Tensor, zero_point: int, top: int, factor: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.zero, ctx.top, ctx.factor = zero_point, top, factor
        return fake_quantize.fake_quantize_activation(x, scale, scale.new_tensor(zero_point), 0, top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, scale = ctx.saved_tensors
        low, high = float(-ctx.zero * scale), float((ctx.top - ctx.zero) * scale)
        x = fake_quantize.dense(x)
        outer = fake_quantize.laid_out_as(grads[0], x)
        inside = fake_quantize.laid_out_as(fake_quantize.pass_inside(outer, x, low, high), x)
        steps, beyond, above = (scale.new_zeros(()) for _ in range(3))
        # In memory order: another one takes strided copies, which take longer than all the rest.
        parts = (fake_quantize.flat(each).split(fake_quantize.FLOAT32_CHUNK) for each in (x, outer, inside))
        for value, grad, kept in zip(*parts, strict=True):
            ratio = value.float() / scale
            steps += torch.dot(kept.float(), ratio.round().sub_(ratio))
            lost = grad.float() - kept.float()
            beyond += lost.sum()
            # Zero is on the grid, so positive values outside are above it.
            above += torch.ops.aten.threshold_backward(lost, ratio, 0.0).sum()
        return inside, (steps + above * ctx.top) * ctx.factor, beyond * ctx.factor, None, None, None
