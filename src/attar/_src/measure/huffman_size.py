"""Huffman size: how large a network is by the account of Polino et al. 2018, to be held against their tables.

Part of ``measure``. What a file of ours takes is its length; this is what theirs would be said to take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.reader import Artifact
from attar._src.coding.huffman import code_lengths
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

#: Bits of a parameter that is not quantized, and of each of the two numbers of a bucket.
FULL = 32


@dataclass(frozen=True)
class HuffmanSize:
    """A network by the paper's account.

    Attributes:
        unquantized: parameters that are on no grid, at 32 bits each.
        codes: quantized parameters.
        buckets: how many ranges they have, at two numbers of 32 bits each.
        mean_length: bits of a code on average, under one Huffman code for all codes of the network.
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
        """How many times smaller that is than all parameters at 32 bits; 1 without parameters."""
        return FULL / 8 * (self.unquantized + self.codes) / self.bytes if self.bytes else 1.0


def huffman_size(source: Artifact | Mapping[str, CompressedTensor]) -> HuffmanSize:
    """Return the size of a network as Polino et al. 2018, "Model compression via distillation and quantization",
    state it (section 5): a Huffman code over the codes of all tensors together, 8 bytes a bucket, 32 bits for what is
    not quantized.

    Neither the code itself nor the points of a codebook are counted, as there. Codes are numbered from the lowest level
    of their grid, so that tensors of different bits share the one code. A scale counts as a bucket, with or without an
    offset; of a sparse tensor the values count, and its mask one bit an element. Parameters are as the file has them: a
    batch-norm that was folded into a weight is no more.

    Args:
        source: an open file, every tensor of which is decoded; or tensors by name.

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
    # As long as it likes, where a file's codes end at 15 bits.
    bits = int((histogram * code_lengths(histogram, longest=histogram.size)).sum()) + masks
    return HuffmanSize(unquantized, codes, buckets, bits / codes if codes else 0.0)


def _histogram(tensor: Quantized | Codebook) -> NDArray[np.int64]:
    """Return how often each level occurs, counted from the lowest, ``(256,)``."""
    lowest = tensor.scheme.qmin if isinstance(tensor, Quantized) else 0
    return np.bincount(tensor.codes.reshape(-1).astype(np.int64) - lowest, minlength=256)
