"""Decompositions of operators for which ONNX or the format has none that is as safe.

A rule replaces a call by one of a Python function on the same values; the export traces it. Each function computes what
the operator computes, to the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from attar._src.model.export import fourier
from attar._src.model.operators import argument, arguments, aten

#: What a call becomes: function and arguments; None if it stays.
_Call = tuple[Callable[..., Any], tuple[Any, ...]]


def decompose(graph: fx.GraphModule) -> None:
    """Replace calls by those of functions that can be exported, in place."""
    for node in graph.graph.nodes:
        made = _RULES[node.target](node) if node.target in _RULES else None
        if made is None:
            continue
        function, given = made
        if node.target is aten.index_put_.default:
            # In place, by an operator that is known to change its argument, so that it is not taken for dead code.
            with graph.graph.inserting_before(node):
                value = graph.graph.call_function(function, given)
            value.meta = dict(node.meta)
            function, given = aten.copy_.default, (given[0], value)
        node.target, node.args, node.kwargs = function, given, {}
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _all(function: Callable[..., Any]) -> Callable[[fx.Node], _Call | None]:
    """Return the rule that calls a function with every argument of the operator, by position."""

    def rule(node: fx.Node) -> _Call:
        names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
        return function, tuple(argument(node, name) for name in names)

    return rule


def _bag(node: fx.Node) -> _Call:
    weight, indices, offsets, mode, weights, last, padding = arguments(
        node, "weight indices offsets mode per_sample_weights include_last_offset padding_idx"
    )
    rows = _rows_of_bags(indices, offsets)
    if rows is not None:
        return bags_of_rows, (weight, rows, mode, weights, padding)
    return bags, (weight, indices, offsets, mode, weights, last, padding)


def _rows_of_bags(indices: fx.Node, offsets: fx.Node) -> fx.Node | None:
    """Return the matrix whose rows are the bags, as ``nn.EmbeddingBag`` flattens it, if there is one."""
    flat = indices.target in (aten.reshape.default, aten.view.default, aten.flatten.using_ints)
    if not flat or offsets.target is not aten.arange.start_step:
        return None
    rows, step = indices.args[0], offsets.args[2]
    assert isinstance(rows, fx.Node)
    length = rows.meta["val"].shape[1] if rows.meta["val"].dim() == 2 else None
    step = step.meta["val"] if isinstance(step, fx.Node) else step
    return rows if length is not None and str(step) == str(length) else None


def bags_of_rows(
    weight: Tensor, rows: Tensor, mode: int, weights: Tensor | None = None, padding: int | None = None
) -> tuple[Tensor]:
    """Return sum (0), mean (1) or maximum (2) of the vectors of each row, without those of the padding index."""
    vectors = functional.embedding(rows, weight)
    if weights is not None:
        vectors = vectors * weights.reshape(rows.shape).unsqueeze(-1)
    if padding is None or padding < 0:
        return (vectors.sum(1) if mode == 0 else vectors.mean(1) if mode == 1 else vectors.amax(1),)
    keep = (rows != padding).unsqueeze(-1)
    count = keep.sum(1)
    if mode == 2:
        most = torch.where(keep, vectors, -math.inf).amax(1)
        return (torch.where(count > 0, most, 0.0),)
    total = torch.where(keep, vectors, 0.0).sum(1)
    return (total if mode == 0 else total / count.clamp(min=1),)


def bags(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    weights: Tensor | None = None,
    last: bool = False,
    padding: int | None = None,
) -> tuple[Tensor]:
    """Return the same of bags that begin at ``offsets`` of the flat ``indices``."""
    offsets = offsets[:-1] if last else offsets
    place = torch.arange(indices.shape[0]).unsqueeze(0)
    ends = torch.cat([offsets[1:], torch.full_like(offsets[:1], 0) + indices.shape[0]])
    member = (place >= offsets.unsqueeze(1)) & (place < ends.unsqueeze(1))
    if padding is not None and padding >= 0:
        member = member & (indices != padding)
    vectors = functional.embedding(indices, weight)
    if weights is not None:
        vectors = vectors * weights.unsqueeze(-1)
    count = member.sum(1, keepdim=True)
    if mode == 2:
        most = torch.where(member.unsqueeze(-1), vectors, -math.inf).amax(1)
        return (torch.where(count > 0, most, 0.0),)
    total = member.to(vectors.dtype) @ vectors
    return (total if mode == 0 else total / count.clamp(min=1),)


def _masked_put(node: fx.Node) -> _Call | None:
    """``y[mask] = 0.0`` as a choice between two values; several values would have to be counted."""
    data, indices, values, accumulate = arguments(node, "self indices values accumulate")
    # One mask, behind the axes that are taken whole: y[:, mask] has the indices (None, mask).
    *whole, mask = indices
    if accumulate or any(each is not None for each in whole) or not isinstance(mask, fx.Node):
        return None
    if mask.meta["val"].dtype is not torch.bool or values.meta["val"].numel() != 1:
        return None
    return put, (data, mask, values, len(whole))


def put(data: Tensor, mask: Tensor, value: Tensor, axis: int = 0) -> Tensor:
    """Return ``data`` with one value where ``mask``, which has the axes from ``axis`` on, is true."""
    behind = data.dim() - mask.dim() - axis
    return torch.where(mask.reshape(*[1] * axis, *mask.shape, *[1] * behind), value.reshape(()), data)


def kth(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Return the k-th smallest value along an axis and its index."""
    values, indices = x.sort(dim)
    values, indices = values.narrow(dim, k - 1, 1), indices.narrow(dim, k - 1, 1)
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


def median(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Return the lower median along an axis and its index."""
    return kth(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def distances(x: Tensor, y: Tensor, p: float = 2.0, *_: Any) -> Tensor:
    """Return ``torch.cdist``."""
    found: Tensor = torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)
    return found


def columns_to_image(
    columns: Tensor,
    output_size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Return ``aten::col2im``: a transposed convolution that puts each element in its place."""
    x = columns if columns.dim() == 3 else columns.unsqueeze(0)
    area = math.prod(kernel)
    channels = x.shape[1] // area
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padded = [size + 2 * p for size, p in zip(output_size, padding, strict=True)]
    blocks = [(size - r) // s + 1 for size, r, s in zip(padded, reach, stride, strict=True)]
    extra = [size - (n - 1) * s - r for size, n, s, r in zip(padded, blocks, stride, reach, strict=True)]
    weight = torch.eye(area).reshape(area, 1, *kernel).repeat(channels, 1, 1, 1)
    found = functional.conv_transpose2d(
        x.reshape(-1, x.shape[1], *blocks), weight, stride=list(stride), dilation=list(dilation), groups=channels
    )
    found = functional.pad(found, (0, extra[1], 0, extra[0]))
    found = found[:, :, padding[0] : padding[0] + output_size[0], padding[1] : padding[1] + output_size[1]]
    return found if columns.dim() == 3 else found.squeeze(0)


def _adaptive_maximum(node: fx.Node) -> _Call | None:
    """The maxima of uneven windows; even ones are exported as they are."""
    x, sizes = node.args[0], node.args[1]
    shape = x.meta["val"].shape[-len(sizes) :]  # type: ignore[union-attr,arg-type]
    fixed = all(isinstance(size, int) for size in shape)
    even = all(size % wanted == 0 for size, wanted in zip(shape, sizes, strict=True))  # type: ignore[arg-type]
    values_only = all(user.args[1:] == (0,) for user in node.users)
    return None if not fixed or even or not values_only else (adaptive_maximum, (x, sizes))


def adaptive_maximum(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor]:
    """Return the values of ``adaptive_max_pool``: window i of n covers floor(i L / n) to ceil((i + 1) L / n)."""
    for axis, count in zip(range(-len(sizes), 0), sizes, strict=True):
        length = x.shape[axis]
        edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        x = torch.cat([x.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in edges], axis)
    return (x,)


def _leaky(node: fx.Node) -> _Call | None:
    x, lower, upper, training = arguments(node, "self lower upper training")
    return None if training else (functional.leaky_relu, (x, (lower + upper) / 2))


def _batch_statistics(node: fx.Node) -> _Call | None:
    """A batch-norm that uses the statistics of each batch in evaluation too, and only writes the running ones."""
    names = "input weight bias running_mean training momentum eps cudnn_enabled"
    x, weight, bias, mean, training, *rest = arguments(node, names)
    return (torch.batch_norm, (x, weight, bias, None, None, True, *rest)) if training and mean is not None else None


_RULES: Mapping[Any, Callable[[fx.Node], _Call | None]] = {
    aten.embedding_bag.padding_idx: _bag,
    aten.embedding_bag.default: _bag,
    aten.index_put_.default: _masked_put,
    aten.index_put.default: _masked_put,
    aten.median.dim: _all(median),
    aten.kthvalue.default: _all(kth),
    aten.cdist.default: _all(distances),
    aten.col2im.default: _all(columns_to_image),
    aten.adaptive_max_pool1d.default: _adaptive_maximum,
    aten.adaptive_max_pool2d.default: _adaptive_maximum,
    aten.adaptive_max_pool3d.default: _adaptive_maximum,
    aten.rrelu.default: _leaky,
    aten.batch_norm.default: _batch_statistics,
    aten._conj.default: _all(fourier.conj),
    aten.stft.default: _all(fourier.stft),
    aten.istft.default: _all(fourier.istft),
    aten.fft_fft.default: _all(fourier.fft),
    aten.fft_ifft.default: _all(fourier.ifft),
    aten.fft_rfft.default: _all(fourier.rfft),
    aten.fft_irfft.default: _all(fourier.irfft),
    aten.fft_hfft.default: _all(fourier.hfft),
    aten.fft_ihfft.default: _all(fourier.ihfft),
    **dict.fromkeys((aten.fft_fft2.default, aten.fft_fftn.default), _all(fourier.fftn)),
    **dict.fromkeys((aten.fft_ifft2.default, aten.fft_ifftn.default), _all(fourier.ifftn)),
    **dict.fromkeys((aten.fft_rfft2.default, aten.fft_rfftn.default), _all(fourier.rfftn)),
    **dict.fromkeys((aten.fft_irfft2.default, aten.fft_irfftn.default), _all(fourier.irfftn)),
}
