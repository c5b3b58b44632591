"""The rule for what is no code: biases, norms and other small tensors in 16 or 8 bits, scales in 16."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar._src.core.float16 import HALF_TYPES, from_half, to_half
from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse, round_to_grid
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.ptq.solver import flat_index
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint, Rule
from attar._src.work.learner import Learner

_HALF_MAX = float(np.finfo(np.float16).max)
#: A grid of 8 bits may have steps of this share of the median magnitude at most.
_COARSEST = 1 / 16
#: Fewer scales than these may save less than the record of their type takes.
_FEWEST = 4
#: A scale may move by this share of itself: half the distance of normal numbers of bfloat16, at most.
_SCALE_MOVES = 2.0**-8
#: An offset may move by this share of the least step of its grid.
_OFFSET_MOVES = 1 / 8
#: A scale that no value depends on is no smaller: half precision holds it.
_UNUSED = 2.0**-14
#: Batch-norms as graphs have them, and the position of the running variance in their arguments.
_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default)
_VAR = 4


class LowPrecision(Rule):
    """Store in 16 or 8 bits what no grid holds, batch-norms that stay in the graph as two vectors, not four, and scales
    in 16 bits where asked.

    In a small network biases and batch-norms weigh as much as its weights: 16 bytes a channel for a batch-norm behind
    an activation, 4 of them left at 16 bits. A tensor of 16 bits is rounded to half precision or bfloat16,
    whichever is nearer; one of 8 bits lies on a symmetric grid over its own range, if its steps are a sixteenth of the
    median magnitude or less: a channel that never fires can have a batch-norm factor hundreds of times the others',
    and they would be rounded to nothing. Such a tensor takes 16 bits, and so does the variance of a batch-norm that
    stays: on a grid a small one would be zero. It acts when the file is made, on floating tensors that nothing else
    holds; what integer kernels add stays as they need it.

    With ``scale_bits: 16`` the scales of every weight on a grid, and the offsets of those that have them, are rounded
    too: to half precision, which moves a scale by 2^-11 of itself at most, or by more if it is very small; where one
    would move by more than 2^-8 of itself, or an offset by more than an eighth of a step, to bfloat16, which has the
    range of float32. Where offsets are too coarse in that as well, both stay in float32: weights far from zero need
    it. Batch-norms are folded by then, and the biases of integer layers are put on the steps of the rounded scales, so
    that these layers stay in integers. Codes stay as they were trained. Weights with fewer than four scales keep
    float32, and so do those that a stage ``quantize`` rounds after training.

    Attributes:
        bits: 16, or 8: cheaper, and worth a look at the accuracy.
        merge: whether batch-norms become two vectors; a file that shall be trained further keeps all four.
        scale_bits: bits of a scale: 32, as trained, or 16.
    """

    name: Literal["low_precision"] = "low_precision"
    bits: Literal[8, 16] = 16
    merge: bool = True
    scale_bits: Literal[16, 32] = 32

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint; it holds nothing while the module is trained."""
        return LowPrecisionConstraint(self)


class LowPrecisionConstraint(Constraint):
    """What a :class:`Narrow` does when the file is made."""

    order: ClassVar[int] = 3

    def __init__(self, rule: LowPrecision) -> None:
        super().__init__({})
        self.rule, self.merges = rule, rule.merge

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the workpiece with its floating tensors, and scales where asked, in fewer bits."""
        if self.rule.scale_bits == 16:
            piece = _with_narrowed_scales(piece)
        fewer, variances = {}, _variances(piece.main.traced.graph)
        for name, tensor in piece.stored().items():
            if name not in piece.tensors and isinstance(tensor, Dense) and tensor.dtype == "f32":
                fewer[name] = to_low_precision(tensor.dense(), 16 if name in variances else self.rule.bits)
        return replace(piece, tensors={**piece.tensors, **fewer})


def to_low_precision(values: NDArray[np.float32], bits: int) -> CompressedTensor:
    """Return finite values, any shape, in 16 or 8 bits; in 16, or as they are, where that is not possible."""
    size = np.abs(values)
    largest = float(size.max(initial=0.0))
    if not np.isfinite(largest) or not values.ndim or not values.size:
        return Dense(values, "f32")
    if (values == values.flat[0]).all():
        # One code throughout takes no bits: what merging leaves of a batch-norm's statistics is of this kind.
        codes = np.sign(values).astype(np.int8)
        return Quantized(codes, np.array([largest or 1.0], np.float32), Scheme(bits=2, granularity=PerTensor()))
    if bits == 8 and largest / 127 <= _COARSEST * np.median(size[size > 0]):
        scheme = Scheme(bits=8, granularity=PerTensor())
        return round_to_grid(values, np.array([largest / scheme.qmax], np.float32), None, scheme)
    wide = Dense(to_half(values, "bf16"), "bf16")
    if largest <= _HALF_MAX:
        finer = Dense(to_half(values, "f16"), "f16")
        if np.abs(finer.dense() - values).max() <= np.abs(wide.dense() - values).max():
            return finer
    return wide if np.isfinite(wide.dense()).all() else Dense(values, "f32")


def with_16_bit_scales(tensor: CompressedTensor) -> CompressedTensor:
    """Return a tensor with its scales and offsets in 16 bits; as it is where it is masked or has none, few, or one that
    no type of 16 bits has near enough.
    """
    if isinstance(tensor, Dense | Sparse) or tensor.scale.size < _FEWEST:
        return tensor
    given = _used(tensor) if isinstance(tensor, Quantized) else tensor.scale
    for dtype in HALF_TYPES:
        scale = _rounded(given, dtype, _share(given))
        if isinstance(tensor, Quantized):
            if scale is not None:
                return replace(tensor, scale=scale, scale_dtype=dtype)
            continue
        offset = _rounded(tensor.offset, dtype, _room(tensor))
        if scale is not None and offset is not None:
            return replace(tensor, scale=scale, offset=offset, scale_dtype=dtype)
    return tensor


def _rounded(values: NDArray[np.float32], dtype: str, room: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return values rounded to a type of 16 bits; None where one moves farther than it may."""
    found = from_half(to_half(values, dtype), dtype)
    return found if (np.abs(found - values) <= room).all() else None


def _share(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return _SCALE_MOVES * np.abs(values.astype(np.float64))


def _room(tensor: Codebook) -> NDArray[np.float64]:
    """Return how far each offset may move."""
    gaps = np.diff(np.unique(tensor.points.astype(np.float64)))
    steps = np.abs(tensor.scale.astype(np.float64)) * (gaps.min() if gaps.size else 0)
    # Where all values are one there is no step to compare with: they are as near as a scale is.
    return np.where(steps > 0, _OFFSET_MOVES * steps, _share(tensor.offset))


def _used(tensor: Quantized) -> NDArray[np.float32]:
    """Return the scales; for codes that are all zero, such as those of a channel that is switched off, the largest.

    Their own may be the least there is in float32, and would keep the others from half precision.
    """
    index = flat_index(tensor.codes, tensor.scheme)
    zero = 0 if tensor.zero_point is None else tensor.zero_point[index]
    used = np.zeros(tensor.scale.size, np.bool_)
    used[index[tensor.codes.reshape(-1) != zero]] = True
    return np.where(used, tensor.scale, tensor.scale[used].max(initial=_UNUSED))


def _with_narrowed_scales(piece: CompressedModel) -> CompressedModel:
    """Return the workpiece with scales in 16 bits, and the biases of integer layers in whole steps of these."""
    tensors = {name: with_16_bit_scales(tensor) for name, tensor in piece.tensors.items()}
    # From the biases as they were trained: rounded to two grids in turn, they would be off by up to a whole step.
    grids = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, Dense)}
    return replace(piece, tensors={**tensors, **with_integer_biases(replace(piece, tensors=grids)).tensors})


def _variances(graph: fx.GraphModule) -> frozenset[str]:
    """Return the names of the tensors that batch-norms divide by the root of."""
    norms = [node for node in graph.graph.nodes if node.target in _NORMS]
    return frozenset(str(node.args[_VAR].target) for node in norms if isinstance(node.args[_VAR], fx.Node))
