"""Write a file again, in the present format: the same numbers in fewer bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from attar._src.artifact.bindings import whole
from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.graph.integer_biases import bias_steps
from attar._src.artifact.packing import AUTO
from attar._src.artifact.reader import Artifact
from attar._src.artifact.writer import pack
from attar._src.core.numbers.short_tensors import shorten_tensors
from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps
from attar._src.core.tensors import CompressedTensor, Dense, Quantized

_LAYERS = ("Conv", "ConvTranspose", "Gemm")  # their inputs are data, weight, bias


def repack(artifact: Artifact, *, coder: str = AUTO, short: bool = False, threads: int = 1) -> bytes:
    """Return the bytes of a file with the contents of another, in the present format.

    Args:
        artifact: the other.
        coder: entropy coder of codes, as in :func:`pack`.
        short: whether scales and biases may get fewer digits (``core/numbers/short_tensors.py``); if not, every
            number is the same. Biases of integer layers are whole steps of the new scales.
        threads: cores that decode.
    """
    contents = contents_of(artifact, threads=threads)
    return pack(shortened(contents) if short else contents, coder=coder, limits=artifact.limits)


def contents_of(artifact: Artifact, *, threads: int = 1) -> Contents:
    """Return what a file was packed from."""
    manifest = artifact.manifest
    told = {
        name: getattr(manifest, name) for name in Contents.__dataclass_fields__ if name not in ("tensors", "graphs")
    }
    fields = ("name", "bindings", "inputs", "outputs", "activations", "dynamic", "rows")
    graphs = tuple(
        GraphContents(model=artifact.graph(record.name), **{name: getattr(record, name) for name in fields})
        for record in manifest.graphs
    )
    tensors = {name: artifact.tensor(name, threads=threads) for name in artifact.names}
    return Contents(tensors=tensors, graphs=graphs, **told)


def shortened(contents: Contents) -> Contents:
    """Return contents whose scales and biases have fewer digits."""
    tensors, steps = contents.tensors, bias_steps(contents.graphs, contents.tensors)
    short = shorten_tensors(tensors, _biases(contents.graphs, steps.keys()))
    moved: dict[str, CompressedTensor] = {}
    for name, each in steps.items():
        bias, weight = tensors[name], short.get(each.weight)
        if isinstance(bias, Dense) and isinstance(weight, Quantized):
            sizes = step_sizes(each.input_scale, weight.scale)
            numbers = to_steps(bias.data, sizes)
            if numbers is not None:
                moved[name] = Dense(from_steps(numbers, sizes))
    return replace(contents, tensors={**tensors, **short, **moved})


def _biases(graphs: Iterable[GraphContents], exact: Collection[str]) -> dict[str, str]:
    """Return the biases that one weight's layers add -> that weight, but for ``exact`` ones."""
    weights: dict[str, set[str]] = {}
    for graph in graphs:
        sources = {binding.to: one.tensor for binding in graph.bindings if (one := whole(binding)) is not None}
        for node in graph.model.graph.node:
            if node.op_type in _LAYERS and len(node.input) == 3 and {*node.input[1:]} <= sources.keys():
                weights.setdefault(sources[node.input[2]], set()).add(sources[node.input[1]])
    return {bias: next(iter(found)) for bias, found in weights.items() if len(found) == 1 and bias not in exact}
