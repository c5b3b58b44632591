"""Asymmetric calibration: codes that make, of what the quantized network reads, what the floating one makes of its own.

A layer multiplies x' where it multiplied x before the layers in front of it were rounded. The rows q with the least

    E |W x - q x'|^2 = E |(W* - q) x'|^2 + const,       W* = W + W (C - H) (H + lambda)^-1,
    H = E[x' x'^T],   C = E[x x'^T]

are those that round W* with the Hessian of x' (:mod:`~attar._src.methods.quantize.ptq.solvers.columns`): what the
layers in front lost is made up for, as far as x' tells it. Li, Yin, Zhang, Liu, Panda, "GPTAQ: Efficient
finetuning-free quantization for asymmetric calibration", ICML 2025 (arXiv 2504.02692, section 3), where the second term
is added column by column; here W* comes first, and grids stay as they are. Biases take what is left of the mean:
``b' = b + W E[x] - q E[x']``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from attar._src.core.errors import SpecError
from attar._src.methods.quantize.ptq.reconstruct.blocks import extract
from attar._src.methods.quantize.ptq.reconstruct.fit import BlockFit, keep_better
from attar._src.methods.quantize.ptq.reconstruct.learned import LearnedVector, LearnedWeight, Mode, set_mode
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid, Real
from attar._src.methods.quantize.ptq.solvers.columns import HessianFactor, descend, round_columns
from attar._src.methods.quantize.ptq.solvers.gptq import SWEEPS, damped
from attar._src.model.operators import bias_of, data_of, kind_of
from attar._src.model.weights import Weight, Window, weight_input

#: Lambda, as a share of the mean of H's diagonal: the fewer inputs, the less W* is to be trusted.
TRUST = 0.03


@dataclass(frozen=True)
class Product:
    """A weight that multiplies one value.

    Attributes:
        weight, bias: names of the tensors; no bias where it, or the weight, has several readers.
        readers: names of the layers.
        window: how they read the value.
    """

    weight: str
    bias: str | None
    readers: tuple[str, ...]
    window: Window


def products_of(graph: fx.GraphModule, weights: Mapping[str, Weight], biases: Sequence[str]) -> list[Product]:
    """Return the products of a traced graph with ``weights``; recurrent layers and tables make none."""
    nodes, found = {node.name: node for node in graph.graph.nodes}, []
    for name, weight in weights.items():
        if not all(kind_of(nodes[reader]) in ("layer", "product") for reader in weight.readers):
            continue
        try:
            window = weight_input(graph, weight).window
        except SpecError:  # a transposed convolution
            continue
        bias = str(getattr(bias_of(nodes[weight.readers[0]]), "target", "")) if len(weight.readers) == 1 else ""
        found.append(Product(name, bias if bias in biases else None, weight.readers, window))
    return found


def reround(
    fit: BlockFit,
    products: Sequence[Product],
    weights: Mapping[str, LearnedWeight],
    vectors: Mapping[str, LearnedVector],
) -> tuple[float, float]:
    """Round the products of a block in order, and keep them if the block is better; return its error before and after.

    Args:
        fit: the block with its values.
        products: of the whole graph.
        weights, vectors: of the graph, by name.
    """
    nodes = {node.name: node for node in fit.program.graph.nodes}
    groups: dict[tuple[fx.Node, ...], list[Product]] = {}
    inside = [each for each in products if all(name in nodes for name in each.readers)]
    place = {name: number for number, name in enumerate(nodes)}
    for product in sorted(inside, key=lambda each: place[each.readers[0]]):
        if not weights[product.weight].shared:
            groups.setdefault(tuple(data_of(nodes[name])[0] for name in product.readers), []).append(product)

    def change() -> None:
        for read, group in groups.items():
            for product, seen in zip(group, _seen(fit, read, group), strict=True):
                if np.isfinite(seen.hessian).all() and seen.count:
                    bias = None if product.bias is None else vectors[product.bias]
                    _round(weights[product.weight], bias, product.window, seen)

    return keep_better(fit.parts, fit.errors, change)


class _Pairs:
    """Sums over the vectors that a product reads in the floating and in the quantized network, ``(groups, d, d)``."""

    def __init__(self, window: Window) -> None:
        self.window, self.count = window, 0
        self.hessian, self.cross = np.zeros((2, window.groups, window.length, window.length))
        self.floating, self.quantized = np.zeros((2, window.groups, window.length))

    def add(self, floating: Tensor, quantized: Tensor) -> None:
        """Add a value of both networks."""
        x, y = (self.window.vectors(each.detach()) for each in (floating, quantized))
        self.hessian += (y.mT @ y).numpy()
        self.cross += (x.mT @ y).numpy()
        self.floating += x.sum(1).numpy()
        self.quantized += y.sum(1).numpy()
        self.count += x.shape[1]


def _seen(fit: BlockFit, read: Sequence[fx.Node], group: Sequence[Product]) -> list[_Pairs]:
    """Return what products that read the same values see on the batches that are trained on."""
    inputs = [node for node in fit.program.graph.nodes if node.op == "placeholder"]
    program, _ = extract(fit.program, inputs, [*dict.fromkeys(read)])
    found = [_Pairs(product.window) for product in group]
    with torch.no_grad():
        for k in range(len(fit.wanted) - fit.held_out):
            set_mode(fit.parts, Mode.FLOATING)
            floating = program(*fit.floating[k])
            set_mode(fit.parts, Mode.STORED)
            for one, other in zip(floating, program(*fit.quantized[k]), strict=True):
                for each in found:
                    each.add(one, other)
    return found


def _round(weight: LearnedWeight, bias: LearnedVector | None, window: Window, seen: _Pairs) -> None:
    """Round a weight on its grid, and correct the bias."""
    rows = window.rows(weight.floating.numpy()).astype(np.float64)
    hessian, cross = seen.hessian / seen.count, seen.cross / seen.count
    trusted = hessian + TRUST * _mean_diagonal(hessian) * np.eye(window.length)
    moved = rows + np.linalg.solve(trusted, (rows @ (cross - hessian)).mT).mT
    index = weight.index.expand(weight.floating.shape).numpy()
    step, zero = (window.rows(each.numpy()[index]).astype(np.float64) for each in (weight.scale, weight.zero))
    codes = _codes(np.where(rows == 0, 0.0, moved), step, zero, (weight.low, weight.high), damped(hessian))
    weight.codes.copy_(torch.from_numpy(window.weight(codes, tuple(weight.floating.shape))))
    if bias is not None:
        means = (seen.floating / seen.count)[..., None], (seen.quantized / seen.count)[..., None]
        shift = rows @ means[0] - (step * (codes - zero)) @ means[1]
        bias.stored.copy_(bias.floating + torch.from_numpy(shift.reshape(-1)).float())


def _codes(rows: Real, step: Real, zero: Real, ends: tuple[int, int], matrix: Real) -> Real:
    """Return the codes of rows ``(groups, out, d)``, rounded column by column with feedback."""
    order = np.argsort(-np.diagonal(matrix, axis1=1, axis2=2), axis=1, kind="stable")
    group = np.arange(len(order))[:, None]
    columns, steps, zeros = (each.mT[group, order] for each in (rows, step, zero))
    ordered = matrix[group[..., None], order[..., None], order[:, None, :]]
    grid = CodeGrid(steps, zeros, *ends)
    found, _ = round_columns(columns, grid, HessianFactor.of(ordered))
    codes = np.empty_like(columns)
    codes[group, order] = descend(columns, found, grid, ordered, SWEEPS)
    return codes.mT


def _mean_diagonal(matrix: Real) -> Real:
    mean = np.diagonal(matrix, axis1=1, axis2=2).mean(1)
    return np.where(mean > 0, mean, 1.0)[:, None, None]
