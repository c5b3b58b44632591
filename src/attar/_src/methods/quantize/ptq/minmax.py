"""Min-max: evenly spaced points from the least to the greatest of each bucket."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.quantize.polino.uniform import UniformWeight
from attar._src.methods.quantize.ptq.solver import InputStatistics, Solver


class MinMaxBuckets(Solver):
    """The post-mortem quantization of Polino et al. 2018 (section 5): the grid of the rule ``linear``, untrained.

    ``2^bits`` points from the least to the greatest of what shares a scale, kept as a codebook with a range and an
    offset each, whether the scheme is symmetric or not. Prefer ``absmax``: its grid has a zero, and integer kernels
    read it. This one is for comparison with the published figures, and where values lie far from zero.
    """

    name: ClassVar[str] = "minmax"

    def solve(
        self, weight: NDArray[np.float32], scheme: Scheme, inputs: InputStatistics | None = None
    ) -> CompressedTensor:
        value = torch.from_numpy(np.ascontiguousarray(weight))
        return UniformWeight(value, scheme.bits, scheme.granularity).to_compressed(value)
