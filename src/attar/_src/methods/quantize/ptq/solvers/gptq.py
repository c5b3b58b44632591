"""GPTQ: rounding that sees what the weight multiplies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, Quantized
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid, Real
from attar._src.methods.quantize.ptq.solvers.columns import HessianFactor, descend, round_columns
from attar._src.methods.quantize.ptq.solvers.mse import Mse
from attar._src.methods.quantize.ptq.solvers.solver import (
    Floats,
    InputStatistics,
    Solver,
    affine_grid,
    flat_index,
    weight_extremes,
)
from attar._src.model.statistics import InputHessian, Statistic
from attar._src.model.weights import Window

#: Share of the mean of the Hessian's diagonal that is added to the diagonal (Frantar et al. 2023, section 3.3).
DAMPING = 0.01
#: Largest number of sweeps over single codes at the end; most weights need two or three.
SWEEPS = 4
#: Passes with prices; after them the shares of codes hardly change.
PASSES = 3
#: Shares of a range that are tried.
_TRIED = np.geomspace(1.0, 0.3, 16)
#: The same over the ratio without prices where bits have a price: wider steps need fewer codes.
_PRICED = 1.5 ** np.arange(-2, 4)
#: From the second pass with prices on, the same over the ratio of the pass before.
_NEAR = np.array([3 / 4, 1, 4 / 3])
#: How often two more are tried beside the best: half as far from it as its neighbours, and half as far again.
RATIO_HALVINGS = 2
#: Rows whose codes tell the prices of all, if there are more than twice as many (tables).
PRICING_ROWS = 4096
#: Rows that are rounded at once: they are independent of others, and the arrays of 400 columns stay in a cache.
ROUNDED_ROWS = 512
#: Elements of weights, a copy for each ratio, that are rounded at once: 8 MiB of float64.
_TRIED_ELEMENTS = 1 << 20

_Index = NDArray[np.int64]


class Gptq(Solver):
    """Rounds column by column, so that each column makes up for the errors of those before it in the layer's output.

    Minimizes ``e^T H e`` with ``e = w - w'`` and H the Hessian of the layer's inputs (Frantar, Ashkboos, Hoefler,
    Alistarh, "GPTQ", ICLR 2023, arXiv 2210.17323). Should be preferred at 4 bits and less: at 3 bits ResNet-20 keeps
    almost what ``absmax`` keeps at 4. It differs from the paper in three ways:

    - Scales: the range of each scale is reduced by the ratio for which the rounded columns have the least error,
      feedback between columns included: of 16 from 1.0 to 0.3, then beside the best. The paper spans the range.
    - Order: columns by descending diagonal of H. Where a scale has some columns of a channel alone (groups), these
      stay together, and their scale is chosen when they come.
    - At the end single codes move to where ``e^T H e`` is less, so that no single code could be better.

    Zeros stay zero, as in pruned weights. An input that is always zero leaves its column rounded to nearest.
    Without statistics H is the identity, for which ``mse`` finds the same where bits have no price.

    With a ``rate`` it minimizes error and bits together, so that entropy coding takes less than the bits of the grid:

        e^T H e / w^T H w + rate x sum of bits(q),        bits(q) = -log2 of the share of code q in the tensor,

    both sums over the whole weight: relative error of the layer's output, and bits of its codes. Each code is chosen
    among the nearest, its neighbours and zero, scales and the descent of single codes by the same cost; shares are
    those of the pass before (``PASSES``), of tables those of some rows (``PRICING_ROWS``). After the rate-distortion
    optimized quantization of video coding, and CERWU (arXiv 2505.18758), whose adaptive model is DeepCABAC's.

    Memory: 8 d^2 bytes for each group of a layer with d inputs, and some copies of the weight in float64.
    """

    name: ClassVar[str] = "gptq"
    inputs: ClassVar[tuple[type[Statistic], ...]] = (InputHessian,)
    inputs_optional: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate

    def at_rate(self, rate: float) -> Gptq:
        return Gptq(rate)

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        return self.solve_each([self], weight, scheme, inputs)[0]

    @classmethod
    def solve_each(
        cls, solvers: Sequence[Self], weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None
    ) -> list[CompressedTensor]:
        low, high = weight_extremes(weight, scheme)
        nearest = [not weight.size or not (inputs or each.rate) for each in solvers]
        if all(nearest):
            return [Mse().solve(weight, scheme) for _ in solvers]
        window, matrix = _curvature(weight, inputs)
        index = window.rows(flat_index(weight, scheme).reshape(weight.shape)).mT
        columns = window.rows(weight).astype(np.float64).mT
        spans = ordered_spans(index, np.diagonal(matrix, axis1=1, axis2=2))
        order = np.concatenate(spans, 1)
        group = np.arange(len(order))[:, None]
        first = _Columns(
            columns[group, order],
            index[group, order],
            matrix[group[..., None], order[..., None], order[:, None, :]],
            scheme,
            affine_grid(low, high, scheme),
            [span.shape[1] for span in spans],
        )
        first.round()
        made: list[CompressedTensor] = []
        for each, alone in zip(solvers, nearest, strict=True):
            if alone:
                made.append(Mse().solve(weight, scheme))
                continue
            work = first.copy()
            work.round_priced(each.rate)
            codes = np.empty_like(columns)
            codes[group, order] = work.codes
            placed: Any = window.weight(codes.mT, weight.shape)
            made.append(Quantized(placed.astype(scheme.code_dtype), work.scale, scheme, work.zero))
        return made


def _each_on_a_thread(function: Callable[[slice], _Columns], parts: Sequence[slice]) -> Iterator[_Columns]:
    """Yield the results in order, made on as many threads as PyTorch has."""
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(parts))) as pool:
        yield from pool.map(function, parts)


def _curvature(weight: Floats, inputs: InputStatistics | None) -> tuple[Window, Real]:
    """Return the window of a weight and its damped Hessians; the identity if nothing is known of its inputs."""
    if not inputs:
        return Window(1, weight.shape[-1]), np.eye(weight.shape[-1])[None]
    hessian: InputHessian = inputs[InputHessian]
    return hessian.window, damped(hessian.matrix)


def code_bits(codes: Real, scheme: Scheme) -> Real:
    """Return the bits of each code from ``qmin`` to ``qmax`` in a tensor of ``codes``: ``-log2 ((n_q + 1/2) / ...)``.

    Half a count is added to each, so that a code which is not there has a price: of 100 codes 7.7 bits.
    """
    counts = np.bincount((codes - scheme.qmin).astype(np.intp).reshape(-1), minlength=scheme.levels) + 0.5
    bits: Real = -np.log2(counts / counts.sum())
    return bits


def damped(matrix: Real) -> Real:
    """Return Hessians ``(groups, d, d)`` with ``DAMPING`` times the mean of its diagonal added to each diagonal.

    They are positive definite then, also if there were fewer inputs than columns. One of zeros becomes the identity
    times ``DAMPING``.
    """
    mean = np.diagonal(matrix, axis1=1, axis2=2).mean(1)
    return matrix + (DAMPING * np.where(mean > 0, mean, 1.0))[:, None, None] * np.eye(matrix.shape[1])


def ordered_spans(index: _Index, diagonal: Real) -> list[_Index]:
    """Return the columns in the order of rounding, cut where scales begin: each ``(groups, columns of the span)``.

    If the columns of any two scales are either the same or apart, those of one scale are a span; else there is one span
    of all columns. Spans come by the mean of the diagonal, largest first, and so do the columns in each.

    Args:
        index: scale of each element, ``(groups, columns, rows)``.
        diagonal: of the Hessians, ``(groups, columns)``.

    Example:
        Channels: ``index[g, :, r] = r`` -> one span. Groups of 2 of 4 columns: two spans of 2 columns.
    """
    count = index.shape[1]
    place = np.broadcast_to(np.arange(count)[None, :, None], index.shape)
    first, last = np.full(index.max() + 1, count), np.full(index.max() + 1, -1)
    np.minimum.at(first, index, place)
    np.maximum.at(last, index, place)
    pairs = sorted({(int(a), int(b) + 1) for a, b in zip(first, last, strict=True) if b >= 0})
    if any(one[1] > other[0] for one, other in pairwise(pairs)):
        pairs = [(0, count)]
    pairs.sort(key=lambda pair: -float(diagonal[:, slice(*pair)].mean()))
    return [np.argsort(-diagonal[:, start:stop], axis=1, kind="stable") + start for start, stop in pairs]


class _Columns:
    """A weight as columns ``(groups, columns, rows)`` in the order of rounding, and what is known of its codes.

    Attributes:
        lengths: of the spans.
        codes, left: what is rounded so far, and its errors ``w - w'``.
        scale, zero: of every scale.
        ratio: of the range of each scale, with which it was chosen.
        prices: of each code (:class:`CodeGrid`).
        tried: ratios that are tried next, ``(ratios, 1)`` of all scales, ``(ratios, scales)`` of each.
    """

    def __init__(
        self,
        weight: Real,
        index: _Index,
        matrix: Real,
        scheme: Scheme,
        grid: tuple[NDArray[np.float32], NDArray[np.uint8] | None],
        lengths: Sequence[int],
    ) -> None:
        # Where all columns of a row share a scale, one index stands for them.
        index = index[:, :1] if (index == index[:, :1]).all() else index
        self.weight, self.index, self.matrix, self.scheme = weight, index, matrix, scheme
        self.factor = HessianFactor.of(matrix)
        self.codes, self.left = np.zeros((2, *weight.shape))
        self.scale, self.zero = grid
        self.lengths = lengths
        self.ratio = np.ones(self.scale.shape)
        self.prices: Real | None = None
        self.tried: Real = _TRIED[:, None]

    def copy(self) -> _Columns:
        """Return columns that may be rounded further, and share what rounding does not change."""
        return self.rows(slice(None))

    def round_priced(self, rate: float) -> None:
        """Round again, with prices of what codes cost after the last time."""
        signal = float((self.weight * (self.matrix @ self.weight)).sum())
        if not (rate and signal):
            return
        sample = self._sample() if self.weight.shape[2] > 2 * PRICING_ROWS else self
        sample.tried = self.tried = self.ratio * _PRICED[:, None]
        for _ in range(PASSES if sample is self else PASSES - 1):
            sample.prices = rate * signal * code_bits(sample.codes, self.scheme)
            sample.round()
            sample.tried = sample.ratio * _NEAR[:, None]
        if sample is not self:
            self.prices = rate * signal * code_bits(sample.codes, self.scheme)
            self.round()

    def _sample(self) -> _Columns:
        # Drawn, as rows of convolutions repeat: every third may be of one column of the kernel.
        drawn = np.random.default_rng(0).choice(self.weight.shape[2], PRICING_ROWS, replace=False)
        return self.rows(np.sort(drawn))

    def rows(self, at: slice | _Index) -> _Columns:
        """Return some rows, with copies of what rounding changes."""
        made = copy.copy(self)
        made.weight, made.index = self.weight[:, :, at].copy(), self.index[:, :, at].copy()
        made.codes, made.left = self.codes[:, :, at].copy(), self.left[:, :, at].copy()
        made.scale, made.ratio = self.scale.copy(), self.ratio.copy()
        made.zero = None if self.zero is None else self.zero.copy()
        return made

    def round(self) -> None:
        """Round all columns, and then single codes: parts of the rows one by one, if no scale is of two of them."""
        count = self.weight.shape[2]
        parts = [slice(start, start + ROUNDED_ROWS) for start in range(0, count, ROUNDED_ROWS)]
        scales = [np.unique(self.index[:, :, at]) for at in parts]
        if len(parts) == 1 or sum(map(len, scales)) > len(np.unique(np.concatenate(scales))):
            self._round()
            return
        for at, own, part in zip(parts, scales, _each_on_a_thread(self._rounded, parts), strict=True):
            self.codes[:, :, at], self.left[:, :, at] = part.codes, part.left
            self.scale[own], self.ratio[own] = part.scale[own], part.ratio[own]
            if self.zero is not None and part.zero is not None:
                self.zero[own] = part.zero[own]

    def _rounded(self, at: slice) -> _Columns:
        part = self.rows(at)
        part._round()
        return part

    def _round(self) -> None:
        start = 0
        for length in self.lengths:
            self.round_span(start, start + length)
            start += length
        self.codes = descend(self.weight, self.codes, self.grid(), self.matrix, SWEEPS)

    def grid(self) -> CodeGrid:
        """Return the grid of every element."""
        return self._spread([(self.scale, self.zero)], self.index)

    def round_span(self, start: int, stop: int) -> None:
        """Choose the scales that begin with these columns, and round the columns."""
        at = slice(start, stop)
        weight, factor = self.weight[:, at], self.factor.part(at)
        own = self.index if self.index.shape[1] == 1 else self.index[:, at]
        scales, index = np.unique(own, return_inverse=True)
        index = index.reshape(own.shape)
        carried = self.factor.unit[:, :start, at].mT @ self.left[:, :start]
        low, high = np.zeros((2, len(scales)))
        aims = weight + carried
        np.minimum.at(low, index, aims if index.shape == aims.shape else aims.min(1, keepdims=True))
        np.maximum.at(high, index, aims if index.shape == aims.shape else aims.max(1, keepdims=True))
        tried = np.broadcast_to(self.tried, (len(self.tried), len(self.scale)))[:, scales]
        ratio = self._best_ratios(weight, index, factor, carried, low, high, tried)
        chosen = affine_grid(low * ratio, high * ratio, self.scheme)
        grid = self._spread([chosen], index)
        self.codes[:, at], _ = round_columns(weight, grid, factor, carried)
        self.left[:, at] = weight - grid.values(self.codes[:, at], slice(None))
        self.scale[scales], self.ratio[scales] = chosen[0], ratio
        if self.zero is not None and chosen[1] is not None:
            self.zero[scales] = chosen[1]

    def _best_ratios(
        self, weight: Real, index: _Index, factor: HessianFactor, carried: Real, low: Real, high: Real, ratios: Real
    ) -> Real:
        """Return the ratio of each range whose rounded columns cost least: of ``ratios (tried, scales)``, then nearer.

        Neighbours in ``ratios`` differ by one factor; the best is tried times its root and over it, and so on,
        ``RATIO_HALVINGS`` times.
        """
        best, ratio = np.full(low.shape, np.inf), np.ones(low.shape)
        many, factors = max(1, _TRIED_ELEMENTS // weight.size), ratios[1] / ratios[0]
        for _ in range(RATIO_HALVINGS + 1):
            for start in range(0, len(ratios), many):
                tried = ratios[start : start + many]
                grid = self._spread([affine_grid(low * each, high * each, self.scheme) for each in tried], index)
                _, costs = round_columns(
                    np.tile(weight, (1, 1, len(tried))), grid, factor, np.tile(carried, (1, 1, len(tried)))
                )
                for each, cost in zip(tried, np.split(costs, len(tried), 2), strict=True):
                    summed = cost if index.shape == cost.shape else cost.sum(1)
                    total = np.bincount(index.reshape(-1), summed.reshape(-1), low.size)
                    better = total < best
                    best[better], ratio[better] = total[better], each[better]
            factors = np.sqrt(factors)
            ratios = np.stack([ratio / factors, ratio * factors])
        return ratio

    def _spread(self, grids: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8] | None]], index: _Index) -> CodeGrid:
        """Return the grid of elements for several choices of scales, side by side along the rows."""
        step = np.concatenate([scale.astype(np.float64)[index] for scale, _ in grids], 2)
        zero = np.concatenate(
            [np.zeros(index.shape) if z is None else z.astype(np.float64)[index] for _, z in grids], 2
        )
        return CodeGrid(step, zero, self.scheme.qmin, self.scheme.qmax, self.prices)
