"""The rule for what is no code: biases, norms and other small tensors in 16 or 8 bits, scales in 16."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from attar.core.halves import SMALLEST, halved, widened
from attar.core.scheme import PerTensor, Scheme
from attar.core.tensors import CompressedTensor, Dense, Quantized, Sparse, quantize
from attar.methods.quantize.bias_grid import biases_on_grid
from attar.work.constraint import Constraint, Rule
from attar.work.learner import Learner
from attar.work.workpiece import Workpiece

_HALF_MAX = float(np.finfo(np.float16).max)
#: A grid of 8 bits may have steps of this share of the median magnitude at most.
_COARSEST = 1 / 16
#: Fewer scales than these may save less than the record of their type takes.
_FEWEST = 4
#: Batch-norms as graphs have them, and the position of the running variance in their arguments.
_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default)
_VAR = 4


class Narrow(Rule):
    """Store in 16 or 8 bits what no grid holds, batch-norms that stay in the graph as two vectors, not four, and scales
    in 16 bits where asked.

    In a small network biases and batch-norms weigh as much as its weights: 16 bytes a channel for a batch-norm behind
    an activation, 4 of them left at 16 bits. A tensor of 16 bits is rounded to half precision or bfloat16,
    whichever is nearer; one of 8 bits lies on a symmetric grid over its own range, if its steps are a sixteenth of the
    median magnitude or less: a channel that never fires can have a batch-norm factor hundreds of times the others',
    and they would be rounded to nothing. Such a tensor takes 16 bits, and so does the variance of a batch-norm that
    stays: on a grid a small one would be zero. It acts when the file is made, on floating tensors that nothing else
    holds; what integer kernels add stays as they need it.

    With ``scales: 16`` the scales of every weight on a grid, and the offsets of those that have them, are rounded too:
    to half precision (a scale moves by 2^-11 of itself at most) where its normal numbers reach all of them, else to
    bfloat16 (2^-8), which has the range of float32. Batch-norms are folded by then, and the biases of integer layers
    are put on the steps of the rounded scales, so that these layers stay in integers. Codes stay as they were trained.
    Weights with fewer than four scales keep float32, and so do those that a stage ``quantize`` rounds after training.

    Attributes:
        bits: 16, or 8: cheaper, and worth a look at the accuracy.
        merge: whether batch-norms become two vectors; a file that shall be trained further keeps all four.
        scales: bits of a scale: 32, as trained, or 16.
    """

    name: Literal["narrow"] = "narrow"
    bits: Literal[8, 16] = 16
    merge: bool = True
    scales: Literal[16, 32] = 32

    def attach(self, learner: Learner) -> Constraint:
        """Return the constraint; it holds nothing while the module is trained."""
        return Narrowed(self)


class Narrowed(Constraint):
    """What a :class:`Narrow` does when the file is made."""

    order: ClassVar[int] = 3

    def __init__(self, rule: Narrow) -> None:
        super().__init__({})
        self.rule, self.merges = rule, rule.merge

    def finish(self, piece: Workpiece) -> Workpiece:
        """Return the workpiece with its floating tensors, and scales where asked, in fewer bits."""
        if self.rule.scales == 16:
            piece = _with_short_scales(piece)
        fewer, variances = {}, _variances(piece.traced.graph)
        for name, tensor in piece.stored().items():
            if name not in piece.tensors and isinstance(tensor, Dense) and tensor.dtype == "f32":
                fewer[name] = narrowed(tensor.dense(), 16 if name in variances else self.rule.bits)
        return replace(piece, tensors={**piece.tensors, **fewer})


def narrowed(values: NDArray[np.float32], bits: int) -> CompressedTensor:
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
        return quantize(values, np.array([largest / scheme.qmax], np.float32), None, scheme)
    halves = Dense(halved(values, "bf16"), "bf16")
    if largest <= _HALF_MAX:
        finer = Dense(halved(values, "f16"), "f16")
        if np.abs(finer.dense() - values).max() <= np.abs(halves.dense() - values).max():
            return finer
    return halves if np.isfinite(halves.dense()).all() else Dense(values, "f32")


def short_scales(tensor: CompressedTensor) -> CompressedTensor:
    """Return a tensor with its scales and offsets in 16 bits; as it is where it has none, few, or none that fit.

    They fit a type where each, once rounded, is finite, and each scale that is not zero a normal number.
    """
    match tensor:
        case Sparse(mask=mask, values=values):
            short = short_scales(values)
            assert not isinstance(short, Sparse)
            return Sparse(mask, short)
        case Dense():
            return tensor
    if tensor.scale.size < _FEWEST:
        return tensor
    for dtype, smallest in SMALLEST.items():
        scale = widened(halved(tensor.scale, dtype), dtype)
        fits = np.isfinite(scale) & ((np.abs(scale) >= smallest) | (tensor.scale == 0))
        if isinstance(tensor, Quantized):
            if fits.all():
                return replace(tensor, scale=scale, scale_dtype=dtype)
            continue
        offset = widened(halved(tensor.offset, dtype), dtype)
        if fits.all() and np.isfinite(offset).all():
            return replace(tensor, scale=scale, offset=offset, scale_dtype=dtype)
    return tensor


def _with_short_scales(piece: Workpiece) -> Workpiece:
    """Return the workpiece with scales in 16 bits, and the biases of integer layers in whole steps of these."""
    tensors = {name: short_scales(tensor) for name, tensor in piece.tensors.items()}
    if piece.activations:
        # From the biases as they were trained: rounded to two grids in turn, they would be off by up to a whole step.
        grids = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, Dense)}
        tensors |= biases_on_grid(piece.traced.graph, replace(piece, tensors=grids).stored(), piece.activations)
    return replace(piece, tensors=tensors)


def _variances(graph: fx.GraphModule) -> frozenset[str]:
    """Return the names of the tensors that batch-norms divide by the root of."""
    norms = [node for node in graph.graph.nodes if node.target in _NORMS]
    return frozenset(str(node.args[_VAR].target) for node in norms if isinstance(node.args[_VAR], fx.Node))
