"""Write a file again, in the present format: the same numbers in fewer bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx

from attar._src.artifact.bindings import whole
from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.graph.integer_biases import bias_steps
from attar._src.artifact.reader import Artifact
from attar._src.artifact.writer import pack
from attar._src.core.numbers.short_tensors import shorten_tensors
from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps
from attar._src.core.tensors import CompressedTensor, Dense, Quantized

_VARIANCE = 4  # input of BatchNormalization


def repack(artifact: Artifact, *, coder: str = "rans", short: bool = False, threads: int = 1) -> bytes:
    """Return the bytes of a file with the contents of another, in the present format.

    Args:
        artifact: the other.
        coder: entropy coder of codes, as in :func:`pack`.
        short: whether scales and vectors may get fewer digits (``core/numbers/short_tensors.py``); if not, every
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
    fields = ("name", "bindings", "inputs", "outputs", "activations", "dynamic")
    graphs = tuple(
        GraphContents(model=artifact.graph(record.name), **{name: getattr(record, name) for name in fields})
        for record in manifest.graphs
    )
    tensors = {name: artifact.tensor(name, threads=threads) for name in artifact.names}
    return Contents(tensors=tensors, graphs=graphs, **told)


def shortened(contents: Contents) -> Contents:
    """Return contents whose scales and vectors have fewer digits."""
    tensors, steps = contents.tensors, bias_steps(contents.graphs, contents.tensors)
    short = shorten_tensors(tensors, steps.keys() | {name for each in contents.graphs for name in _variances(each)})
    moved: dict[str, CompressedTensor] = {}
    for name, each in steps.items():
        bias, weight = tensors[name], short.get(each.weight)
        if isinstance(bias, Dense) and isinstance(weight, Quantized):
            sizes = step_sizes(each.input_scale, weight.scale)
            numbers = to_steps(bias.data, sizes)
            if numbers is not None:
                moved[name] = Dense(from_steps(numbers, sizes))
    return replace(contents, tensors={**tensors, **short, **moved})


def _variances(graph: GraphContents) -> Iterator[str]:
    sources: Mapping[str, str] = {
        binding.to: one.tensor for binding in graph.bindings if (one := whole(binding)) is not None
    }
    norms: list[onnx.NodeProto] = [node for node in graph.model.graph.node if node.op_type == "BatchNormalization"]
    return (sources[node.input[_VARIANCE]] for node in norms if node.input[_VARIANCE] in sources)
