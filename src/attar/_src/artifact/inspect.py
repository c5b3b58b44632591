"""Account for every byte of a file, as JSON values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from attar._src.artifact.layout import FOOTER, HEADER, places
from attar._src.artifact.manifest import (
    CodebookValue,
    CodeStream,
    DenseValue,
    GraphRecord,
    QuantizedValue,
    SparseValue,
    StepsValue,
    TensorRecord,
    TensorValue,
)
from attar._src.artifact.packing import symbol_histogram
from attar._src.artifact.reader import Artifact
from attar._src.artifact.streams import CodeArray, split
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.integers import bit_width
from attar._src.core.tensors import DTYPES


def inspect_artifact(artifact: Artifact) -> dict[str, Any]:
    """Return the contents of a file and their sizes in bytes, JSON values only.

    ``weights_bytes`` (sections of tensors and tables), ``graph_bytes`` and ``overhead_bytes`` (header, manifest,
    padding, footer) add up to ``file_bytes``, and so do ``parts``, which tell codes, scales and floats apart.
    ``bits_per_weight`` is ``8 (file_bytes - graph_bytes) / parameters``, or None without parameters. Every tensor is
    decoded and every graph validated.
    """
    manifest = artifact.manifest
    lengths = [section.length for section in manifest.sections]
    graphs = sum(section.length for section in manifest.sections if section.kind == "graph")
    weights = sum(lengths) - graphs
    overhead = artifact.file_bytes - sum(lengths)
    parameters = manifest.parameters
    rest = {
        "header": HEADER.size,
        "manifest": artifact.manifest_bytes,
        "footer": FOOTER.size,
        "padding": overhead - HEADER.size - artifact.manifest_bytes - FOOTER.size,
    }
    return {
        "format": artifact.version,
        "sha256": artifact.sha256,
        "file_bytes": artifact.file_bytes,
        "weights_bytes": weights,
        "graph_bytes": graphs,
        "overhead_bytes": overhead,
        "overhead": rest,
        "parts": {**_parts(artifact), "graph": graphs, **rest},
        "parameters": parameters,
        "bits_per_weight": (artifact.file_bytes - graphs) * 8 / parameters if parameters else None,
        "tensors": [_tensor(artifact, record) for record in manifest.tensors],
        "aliases": dict(manifest.aliases),
        "tables": _tables(artifact),
        "sections": [
            {"kind": section.kind, "offset": place.start, "length": section.length}
            for section, place in zip(manifest.sections, places(lengths, artifact.minor), strict=True)
        ],
        "graphs": [_graph(artifact, record) for record in manifest.graphs],
        **manifest.model_dump(
            mode="json",
            include={"folds", "preprocessing", "task", "class_names", "metric", "recipe", "versions", "licence"},
        ),
    }


def _parts(artifact: Artifact) -> dict[str, int]:
    """Return the bytes of codes and masks, of scales with offsets and zero points, of floats, and of coding tables."""
    parts = {"codes": 0, "scales": 0, "floats": 0, "tables": sum(each.length for each in artifact.manifest.tables)}
    for record in artifact.manifest.tensors:
        value = record.value
        for stream in value.streams():
            inner = value.values if isinstance(value, SparseValue) else value
            if isinstance(stream, CodeStream):
                parts["codes"] += stream.length
            else:
                dense = isinstance(inner, DenseValue | StepsValue) or stream is getattr(inner, "points", None)
                parts["floats" if dense else "scales"] += stream.length
    return parts


def _tensor(artifact: Artifact, record: TensorRecord) -> dict[str, Any]:
    tensor = artifact.tensor(record.name)
    codes = [piece for piece in split(tensor) if isinstance(piece, CodeArray)]
    entropies = (entropy_bits(symbol_histogram(piece.symbols, piece.alphabet)) * piece.symbols.size for piece in codes)
    streams = record.value.streams()
    return {
        "name": record.name,
        "shape": list(record.shape),
        "kind": record.value.kind,
        "bits": _bits(record.value),
        "elements": record.elements,
        "nonzero": int(np.count_nonzero(tensor.dense())),
        "entropy_bits": sum(entropies) / max(record.elements, 1) if codes else None,
        "payload_bytes": sum(stream.length for stream in streams),
        "coders": [stream.coder for stream in streams if isinstance(stream, CodeStream)],
        **_grid(record.value),
    }


def _bits(value: TensorValue) -> int:
    """Return the width in bits of a stored code, or of an element of a dense tensor."""
    if isinstance(value, SparseValue):
        return _bits(value.values)
    if isinstance(value, DenseValue):
        return 8 * DTYPES[value.dtype].itemsize
    if isinstance(value, StepsValue):
        return bit_width(value.data.integers.levels)
    return value.bits if isinstance(value, QuantizedValue) else (value.points.length // 4 - 1).bit_length()


def _grid(value: TensorValue) -> dict[str, Any]:
    """Return the fields that only some kinds of tensor have."""
    if isinstance(value, SparseValue):
        return {"values": {"kind": value.values.kind, **_grid(value.values)}}
    if isinstance(value, DenseValue):
        return {"dtype": value.dtype}
    if isinstance(value, StepsValue):
        return {"weight": value.weight, "input_scale": value.input_scale}
    grid = {"granularity": value.granularity.model_dump(mode="json"), "scale_dtype": value.scale.dtype}
    if isinstance(value, CodebookValue):
        return {**grid, "points": value.points.length // 4}
    return {**grid, "symmetric": value.symmetric, "narrow_range": value.narrow}


def _tables(artifact: Artifact) -> list[dict[str, Any]]:
    users = Counter(
        stream.table
        for record in artifact.manifest.tensors
        for stream in record.value.streams()
        if isinstance(stream, CodeStream)
    )
    return [
        {"coder": record.coder, "alphabet": record.alphabet, "bytes": record.length, "streams": users[index]}
        for index, record in enumerate(artifact.manifest.tables)
    ]


def _graph(artifact: Artifact, record: GraphRecord) -> dict[str, Any]:
    model = artifact.graph(record.name)
    return {
        "name": record.name,
        "bytes": artifact.manifest.sections[record.section].length,
        "inflated_bytes": record.length,
        "opset": model.opset_import[0].version,
        "nodes": len(model.graph.node),
        "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        "initializers": len(model.graph.initializer),
        "bindings": len(record.bindings),
        "activations": len(record.activations),
        "dynamic": len(record.dynamic),
        "inputs": [port.model_dump(mode="json") for port in record.inputs],
        "outputs": [port.model_dump(mode="json", exclude={"example"}) for port in record.outputs],
    }
