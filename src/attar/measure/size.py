"""Where every byte of a file goes. Part of ``attar.measure``; reads the file and runs nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.artifact.reader import Artifact
from attar.core.scheme import Shape
from attar.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse


@dataclass(frozen=True)
class TensorSize:
    """One stored tensor.

    Attributes:
        name: the module's own name of it.
        shape: its shape.
        kind: ``dense``, ``quantized``, ``codebook`` or ``sparse``.
        bits: width of one value before entropy coding: of a code, or of an element as it is.
        elements: how many there are.
        nonzero: how many are not zero once dequantized.
        entropy_bits: empirical zero-order entropy of what is coded, per element: no coder of single symbols can take
            fewer bits. For dense tensors, which are not coded, their width.
        payload_bytes: its bytes in the file, scales and all.
    """

    name: str
    shape: Shape
    kind: str
    bits: int
    elements: int
    nonzero: int
    entropy_bits: float
    payload_bytes: int


@dataclass(frozen=True)
class Sizes:
    """A whole file; ``weights_bytes + graph_bytes + overhead_bytes == file_bytes``.

    Attributes:
        file_bytes: length of the file.
        weights_bytes: sections of tensors and of coding tables.
        graph_bytes: sections of graphs, compressed.
        overhead_bytes: header, manifest, footer and padding.
        parameters: number of parameters of the module.
        bits_per_weight: ``(file_bytes - graph_bytes) * 8 / parameters``; NaN where there are none.
        sections: part of the file -> its bytes, adding up to ``file_bytes``.
        tensors: every stored tensor, in file order.
    """

    file_bytes: int
    weights_bytes: int
    graph_bytes: int
    overhead_bytes: int
    parameters: int
    bits_per_weight: float
    sections: dict[str, int]
    tensors: tuple[TensorSize, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values; ``bits_per_weight`` is null where there are no parameters."""
        return asdict(self) | {"bits_per_weight": self.bits_per_weight if self.parameters else None}


def sizes(artifact: Artifact) -> Sizes:
    """Return where the bytes of a file go. Every tensor is decoded for it.

    Raises:
        ArtifactError: a tensor is malformed.
    """
    kinds = {"tables": 0, "tensors": 0, "graph": 0}
    for section in artifact.manifest.sections:
        kinds[section.kind] += section.length
    header, footer = 16, 64
    parts = {"header": header, **kinds, "manifest": artifact.manifest_bytes, "footer": footer}
    parts["padding"] = artifact.file_bytes - sum(parts.values())
    weights, graph, parameters = kinds["tables"] + kinds["tensors"], kinds["graph"], artifact.manifest.parameters
    return Sizes(
        file_bytes=artifact.file_bytes,
        weights_bytes=weights,
        graph_bytes=graph,
        overhead_bytes=artifact.file_bytes - weights - graph,
        parameters=parameters,
        bits_per_weight=(artifact.file_bytes - graph) * 8 / parameters if parameters else math.nan,
        sections=parts,
        tensors=tuple(
            _tensor_size(record.name, artifact.tensor(record.name), sum(s.length for s in record.value.streams()))
            for record in artifact.manifest.tensors
        ),
    )


def entropy(symbols: NDArray[Any]) -> float:
    """Return the empirical zero-order entropy of symbols, in bits: ``-sum p log2 p``; 0 where there are none."""
    _, counts = np.unique(symbols, return_counts=True)
    share = counts / max(symbols.size, 1)
    return float(max(0.0, -(share * np.log2(share)).sum()))


def _tensor_size(name: str, tensor: CompressedTensor, payload: int) -> TensorSize:
    elements = math.prod(tensor.shape)
    kind = type(tensor).__name__.lower()
    nonzero = int(np.count_nonzero(tensor.dense()))
    return TensorSize(name, tensor.shape, kind, _bits(tensor), elements, nonzero, _entropy(tensor), payload)


def _bits(tensor: CompressedTensor) -> int:
    match tensor:
        case Dense():
            return tensor.data.dtype.itemsize * 8
        case Quantized():
            return tensor.scheme.bits
        case Codebook():
            return (tensor.points.size - 1).bit_length()
        case Sparse():
            return _bits(tensor.values)


def _entropy(tensor: CompressedTensor) -> float:
    match tensor:
        case Dense():
            return float(_bits(tensor))
        case Quantized() | Codebook():
            return entropy(tensor.codes)
        case Sparse():
            share = tensor.values.shape[0] / max(tensor.mask.size, 1)
            return entropy(tensor.mask) + share * _entropy(tensor.values)
