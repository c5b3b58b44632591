"""The rule for tensors without codes: biases, norms and other small tensors in 16 or 8 bits, scales in 16."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx

from attar._src.core.float16 import HALF_TYPES, from_half, to_half
from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse, round_to_grid
from attar._src.methods.quantize.integer_layers import fit_integer_layers, used_scales
from attar._src.model.operators import argument, kind_of
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule

_HALF_MAX = float(np.finfo(np.float16).max)
_COARSEST = 1 / 16  # largest step of an 8-bit grid, as a share of the median magnitude
_FEWEST = 4  # fewer scales may save less than the record of their type takes
_SCALE_TOLERANCE = 2.0**-8  # relative: half the spacing of normal bfloat16 numbers, at most
_OFFSET_TOLERANCE = 1 / 8  # in steps of the finest spacing of the points


class LowPrecision(Rule):
    """Store float tensors in 16 or 8 bits, unfolded batch-norms as two vectors instead of four, and optionally scales
    in 16 bits. A batch-norm in float32 takes 16 bytes per channel; merged and in half precision 4.

    The rule acts when the file is made, on float32 tensors that no other rule compresses; biases of integer layers keep
    their integer grid.

    - 16 bits: half precision or bfloat16, whichever has the smaller largest error.
    - 8 bits: a symmetric grid over the tensor's range, if its step is at most 1/16 of the median magnitude; otherwise
      16 bits. A channel that never fires can have a batch-norm factor hundreds of times the others, which a grid over
      that range would round to zero. Variances always take 16 bits for the same reason.
    - ``scale_bits: 16``: scales and offsets of weights too, in half precision; in bfloat16 if a scale would move by
      more than 2^-8 of its size or an offset by more than 1/8 step; in float32 if that is too coarse as well. Codes do
      not change; biases of integer layers are rounded to steps of the new scales. Weights with fewer than 4 scales keep
      float32, and so do weights that a later stage ``quantize`` rounds after training.

    Attributes:
        bits: 16 or 8; 8 is smaller, but the accuracy should be checked.
        merge: whether unfolded batch-norms become two vectors; false keeps all four for training from the file.
        scale_bits: bits of a scale, 32 or 16.
    """

    name: Literal["low_precision"] = "low_precision"
    bits: Literal[8, 16] = 16
    merge: bool = True
    scale_bits: Literal[16, 32] = 32

    def attach(self, learner: Learner) -> Constraint:
        return LowPrecisionConstraint(self)


class LowPrecisionConstraint(Constraint):
    """A :class:`LowPrecision`; it does not act in training."""

    order: ClassVar[int] = 3

    def __init__(self, rule: LowPrecision) -> None:
        super().__init__({})
        self.rule, self.merges = rule, rule.merge

    def finish(self, model: CompressedModel) -> CompressedModel:
        if self.rule.scale_bits == 16:
            model = _with_16_bit_scales(model)
        fewer, kept = {}, variances(model.main.traced.graph)
        for name, tensor in model.stored().items():
            if name not in model.tensors and isinstance(tensor, Dense) and tensor.dtype == "f32":
                fewer[name] = to_low_precision(tensor.dense(), 16 if name in kept else self.rule.bits)
        return replace(model, tensors={**model.tensors, **fewer})


def to_low_precision(values: NDArray[np.float32], bits: int) -> CompressedTensor:
    """Return values, any shape, in 8 or 16 bits: as many as ``bits`` if possible, otherwise more.

    Example:
        >>> to_low_precision(np.array([0.5, -1.0, 0.75], np.float32), 8).codes
        array([  64, -127,   95], dtype=int8)
    """
    size = np.abs(values)
    largest = float(size.max(initial=0.0))
    if not np.isfinite(largest) or not values.ndim or not values.size:
        return Dense(values, "f32")
    if (values == values.flat[0]).all():
        # A single code takes no bits after entropy coding; merging leaves such statistics of a batch-norm.
        codes = np.sign(values).astype(np.int8)
        return Quantized(codes, np.array([largest or 1.0], np.float32), Scheme(bits=2, granularity=PerTensor()))
    if bits == 8 and largest / 127 <= _COARSEST * np.median(size[size > 0]):
        scheme = Scheme(bits=8, granularity=PerTensor())
        return round_to_grid(values, np.array([largest / scheme.qmax], np.float32), None, scheme)
    bfloat = Dense(to_half(values, "bf16"), "bf16")
    if largest <= _HALF_MAX:
        half = Dense(to_half(values, "f16"), "f16")
        if np.abs(half.dense() - values).max() <= np.abs(bfloat.dense() - values).max():
            return half
    return bfloat if np.isfinite(bfloat.dense()).all() else Dense(values, "f32")


def with_16_bit_scales(tensor: CompressedTensor) -> CompressedTensor:
    """Return a tensor with scales and offsets in half precision or bfloat16; unchanged if neither is precise enough, or
    it has fewer than 4 scales."""
    if isinstance(tensor, Dense | Sparse) or tensor.scale.size < _FEWEST:
        return tensor
    scales = used_scales(tensor) if isinstance(tensor, Quantized) else tensor.scale
    fields = {"scale": (scales, _scale_tolerance(scales))}
    if isinstance(tensor, Codebook):
        fields["offset"] = tensor.offset, _offset_tolerance(tensor)
    for dtype in HALF_TYPES:
        rounded: dict[str, Any] = {name: from_half(to_half(old, dtype), dtype) for name, (old, _) in fields.items()}
        if all((np.abs(rounded[name] - old) <= tolerance).all() for name, (old, tolerance) in fields.items()):
            return replace(tensor, scale_dtype=dtype, **rounded)
    return tensor


def _scale_tolerance(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return _SCALE_TOLERANCE * np.abs(values.astype(np.float64))


def _offset_tolerance(tensor: Codebook) -> NDArray[np.float64]:
    gaps = np.diff(np.unique(tensor.points.astype(np.float64)))
    steps = np.abs(tensor.scale.astype(np.float64)) * (gaps.min() if gaps.size else 0)
    # A bucket whose values are all equal has no step; its offset gets the relative tolerance of a scale.
    return np.where(steps > 0, _OFFSET_TOLERANCE * steps, _scale_tolerance(tensor.offset))


def _with_16_bit_scales(model: CompressedModel) -> CompressedModel:
    """Return the model with scales in 16 bits, and the biases of integer layers in whole steps of these."""
    tensors = {name: with_16_bit_scales(tensor) for name, tensor in model.tensors.items()}
    # From the trained biases, because rounding to two grids in turn can be off by a whole step.
    grids = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, Dense)}
    return replace(model, tensors={**tensors, **fit_integer_layers(replace(model, tensors=grids)).tensors})


def variances(graph: fx.GraphModule) -> frozenset[str]:
    """Return the names of the running variances of batch-norms."""
    variances = (argument(node, "running_var") for node in graph.graph.nodes if kind_of(node) == "batch_norm")
    return frozenset(str(variance.target) for variance in variances if isinstance(variance, fx.Node))
