"""A graph of a compressed model with modules for what reconstruction may change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from attar._src.core.tensors import CompressedTensor, Dense, Quantized
from attar._src.methods.quantize.layer_biases import layer_biases
from attar._src.methods.quantize.ptq.reconstruct.blocks import Block, find_blocks
from attar._src.methods.quantize.ptq.reconstruct.learned import (
    STORED,
    FixedTensor,
    Learned,
    LearnedGrid,
    LearnedVector,
    LearnedWeight,
    StraightThroughDynamic,
)
from attar._src.methods.quantize.ptq.reconstruct.rerounding import Product, products_of
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.programs import copy_graph, set_tensor, wrap
from attar._src.model.weights import find_weights
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.dynamic_recurrent import recur_dynamically
from attar._src.work.dynamic_rounding import DynamicRound, round_inputs

#: Bits from which on rounding to the nearest is not worth improving.
FINE = 8


@dataclass(frozen=True)
class LearnedNetwork:
    """A graph whose modules hold codes, scales, biases and grids.

    Attributes:
        graph: computes the network in the mode of its modules.
        name: of the graph in the model.
        weights, vectors: tensor -> its module; vectors are biases, and factors and shifts of norms.
        grids: values of a site -> its module.
        parts: name of every module in ``graph``, one of its names -> the module.
        left: quantized tensor -> why it is not improved.
        fixed_batch: whether the graph takes batches of one size alone.
        outputs: names of the outputs, in the order of the graph's.
        products: of ``weights``, those that multiply one value.
    """

    graph: fx.GraphModule
    name: str
    weights: Mapping[str, LearnedWeight]
    vectors: Mapping[str, LearnedVector]
    grids: Mapping[tuple[str, ...], LearnedGrid]
    parts: Mapping[str, Learned]
    left: Mapping[str, str]
    fixed_batch: bool
    outputs: tuple[str, ...]
    products: Sequence[Product]

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks of the graph."""
        return find_blocks(self.graph, {name for name, part in self.modules.items() if isinstance(part, LearnedWeight)})

    @cached_property
    def modules(self) -> dict[str, Learned]:
        """Every name of every module in ``graph`` -> the module."""
        named = self.graph.named_modules(remove_duplicate=False)
        return {name: module for name, module in named if isinstance(module, Learned)}

    @classmethod
    def of(cls, model: CompressedModel, name: str) -> LearnedNetwork:
        """Return the modules of one graph; a tensor of several belongs to the first that multiplies data by it."""
        of = model.graphs[name]
        graph = copy_graph(of.traced.graph)
        floating = {key: torch.from_numpy(np.array(value)) for key, value in of.stored().items()}
        for key in model.pruned.keys() & floating.keys():
            # The traced graph has the weights before they were pruned.
            floating[key][torch.from_numpy(model.pruned[key])] = 0
        for key, value in floating.items():
            set_tensor(graph, key, value)
        weights, left = _weights(model, name, floating)
        vectors = _vectors(model, name, weights, floating)
        tensors: dict[str, nn.Module] = {
            key: FixedTensor(floating[key], tensor)
            for key, tensor in model.tensors.items()
            if key in floating and key not in weights and key not in vectors
        }
        wrap(graph, {**tensors, **weights, **vectors}, "tensor_")
        grids: dict[tuple[str, ...], LearnedGrid] = {}
        for site in integer_sites(of, model.tensors):
            sources = [source for source in site.sources if source in of.rounded]
            if sources:
                grids[site.values] = LearnedGrid(of.activations[sources[0]])
        by_value = {value: grid for values, grid in grids.items() for value in values if value in of.rounded}
        missing = {value: LearnedGrid(of.activations[value]) for value in of.rounded - by_value.keys()}
        wrap(graph, {**by_value, **missing}, "site_")
        round_inputs(graph, of.dynamic, "dynamic_", of.rows)
        recur_dynamically(graph, of.dynamic, "dynamic_")
        _pass_gradients(graph)
        _read_sizes(graph)
        graph.eval()
        graph.recompile()
        grids |= {(value,): grid for value, grid in missing.items()}
        names = tuple(port.name for port in of.traced.outputs)
        parts = {key: part for key, part in graph.named_modules() if isinstance(part, Learned)}
        known = find_weights(of.traced.graph)
        products = products_of(of.traced.graph, {key: known[key] for key in weights}, [*vectors])
        return cls(graph, name, weights, vectors, grids, parts, left, not of.traced.any_batch, names, products)

    def result(self, model: CompressedModel) -> CompressedModel:
        """Return the model with what the modules store."""
        of = model.graphs[self.name]
        tensors: dict[str, CompressedTensor] = dict(model.tensors)
        tensors |= {name: weight.tensor() for name, weight in self.weights.items()}
        tensors |= {name: vector.tensor() for name, vector in self.vectors.items()}
        activations = dict(of.activations)
        for values, grid in self.grids.items():
            activations |= {value: grid.activation(value) for value in values if value in activations}
        graphs = {**model.graphs, self.name: replace(of, activations=activations)}
        return replace(model, tensors=tensors, graphs=graphs)

    def state(self) -> dict[str, Tensor]:
        """Return the stored tensors of all modules, for a checkpoint."""
        return {
            f"{name}.{key}": value
            for name, part in self.parts.items()
            for key, value in part.named_buffers()
            if key in STORED and not isinstance(part, FixedTensor)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        with torch.no_grad():
            for name, part in self.parts.items():
                for key in STORED:
                    if f"{name}.{key}" in state:
                        getattr(part, key).copy_(state[f"{name}.{key}"])


def _weights(
    model: CompressedModel, name: str, floating: Mapping[str, Tensor]
) -> tuple[dict[str, LearnedWeight], dict[str, str]]:
    """Return the weights to be learned, and why others are not."""
    found, left = dict[str, LearnedWeight](), dict[str, str]()
    known, readers = find_weights(model.graphs[name].traced.graph), model.readers()
    for key, tensor in model.tensors.items():
        if key not in floating or isinstance(tensor, Dense):
            continue
        if not isinstance(tensor, Quantized):
            left[key] = "it is stored as a codebook or with a mask; only affine grids are reconstructed"
        elif key in model.schemes:
            left[key] = f"it has some codes of its grid alone, by the scheme {model.schemes[key]!r}"
        elif key not in known:
            left[key] = "no layer multiplies data by it"
        elif readers[key][0] != name:
            continue
        elif tensor.scheme.bits >= FINE:
            left[key] = f"it has {FINE} bits, where rounding to the nearest is fine"
        elif not bool(torch.isfinite(floating[key]).all()):
            left[key] = "it has NaN or infinities"
        else:
            found[key] = LearnedWeight(floating[key], tensor)
    return found, left


def _vectors(
    model: CompressedModel, name: str, weights: Mapping[str, Any], floating: Mapping[str, Tensor]
) -> dict[str, LearnedVector]:
    """Return the vectors of a graph that are stored as numbers: biases of learned weights, vectors of no layer.

    The latter are factors and shifts of norms (Li et al. 2024, "Norm tweaking", AAAI), slopes and the like.
    """
    graph, untrained = model.graphs[name].traced.graph, model.shared() | model.pruned.keys()
    biases: dict[str, set[str]] = {}
    for bias, weight in layer_biases(graph):
        biases.setdefault(bias, set()).add(weight)
    read = Counter(str(node.target) for node in graph.graph.nodes if node.op == "get_attr" for _ in node.users)
    found = {}
    for key, parameter in graph.named_parameters():
        tensor = model.tensors.get(key)
        if parameter.dim() != 1 or read[key] != 1 or key in untrained or not biases.get(key, set()) <= weights.keys():
            continue
        if key not in floating or floating[key].dtype != torch.float32:
            continue
        # Numbers for which another type was chosen keep it, as do those on grids.
        if tensor is None or (isinstance(tensor, Dense) and tensor.dtype == "f32"):
            stored = floating[key] if tensor is None else torch.from_numpy(np.array(tensor.dense()))
            if bool(torch.isfinite(stored).all()):
                found[key] = LearnedVector(floating[key], stored)
    return found


def _read_sizes(graph: fx.GraphModule) -> None:
    """Let sizes be read of values before rounding: they are the same, and block borders would have to carry them."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), int | torch.SymInt):
            for read in node.all_input_nodes:
                while read.op == "call_module":
                    node.replace_input_with(read, read.all_input_nodes[0])
                    read = read.all_input_nodes[0]


def _pass_gradients(graph: fx.GraphModule) -> None:
    """Let gradients pass dynamic grids."""
    for module in list(graph.modules()):
        for name, child in list(module.named_children()):
            if type(child) is DynamicRound:
                setattr(module, name, StraightThroughDynamic(child))
