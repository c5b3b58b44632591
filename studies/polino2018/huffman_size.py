"""The size of a network as Polino et al. 2018 state it, for comparison with their tables; a file's length differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.reader import Artifact
from attar._src.coding.huffman import code_lengths
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

#: Bits of an unquantized parameter, and of each of the two numbers of a bucket.
FULL = 32


@dataclass(frozen=True)
class HuffmanSize:
    """A network in the paper's terms.

    Attributes:
        unquantized: parameters stored in 32 bits.
        codes: quantized parameters.
        buckets: their ranges, two 32-bit numbers each.
        mean_length: mean bits of a code under one Huffman code for the whole network.
    """

    unquantized: int
    codes: int
    buckets: int
    mean_length: float

    @property
    def bytes(self) -> float:
        """``4 unquantized + mean_length codes / 8 + 8 buckets``."""
        return FULL / 8 * self.unquantized + self.mean_length * self.codes / 8 + 2 * FULL / 8 * self.buckets

    @property
    def ratio(self) -> float:
        """All parameters at 32 bits over ``bytes``; 1 without parameters."""
        return FULL / 8 * (self.unquantized + self.codes) / self.bytes if self.bytes else 1.0


def huffman_size(source: Artifact | Mapping[str, CompressedTensor]) -> HuffmanSize:
    """Return the size of a network as defined in Polino et al. 2018, "Model compression via distillation and
    quantization", section 5: one Huffman code for the codes of all tensors, 8 bytes for a bucket, 32 bits for an
    unquantized parameter.

    As in the paper, the table of the Huffman code and the points of a codebook are not counted. Codes are numbered from
    the lowest level of their grid, so that tensors of different bits share one code. Each scale counts as a bucket. A
    sparse tensor counts by its values and one bit per element for the mask. Folded batch-norms are not counted.

    Args:
        source: an open file, all of whose tensors are decoded, or tensors by name.

    Raises:
        ArtifactError: the payload of a tensor is malformed.
    """
    tensors = (source.tensor(name) for name in source.names) if isinstance(source, Artifact) else source.values()
    histogram = np.zeros(256, np.int64)
    unquantized, buckets, masks = 0, 0, 0
    for tensor in tensors:
        if isinstance(tensor, Sparse):
            masks += tensor.mask.size
            tensor = tensor.values
        if isinstance(tensor, Dense):
            unquantized += tensor.data.size if tensor.dtype in ("f32", "f16", "bf16") else 0
        else:
            histogram += _histogram(tensor)
            buckets += tensor.scale.size
    codes = int(histogram.sum())
    # Of any length; in a file codes have at most 15 bits.
    bits = int((histogram * code_lengths(histogram, longest=histogram.size)).sum()) + masks
    return HuffmanSize(unquantized, codes, buckets, bits / codes if codes else 0.0)


def _histogram(tensor: Quantized | Codebook) -> NDArray[np.int64]:
    """Return the count of each level from the lowest, ``(256,)``."""
    lowest = tensor.scheme.qmin if isinstance(tensor, Quantized) else 0
    return np.bincount(tensor.codes.reshape(-1).astype(np.int64) - lowest, minlength=256)
