"""The uniform points of Polino et al. 2018, without training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.quantize.polino.uniform import UniformWeight
from attar._src.methods.quantize.ptq.solvers.solver import Floats, InputStatistics, Solver


class MinMaxBuckets(Solver):
    """Post-mortem quantization (Polino et al. 2018, "Model compression via distillation and quantization", section 5):
    the grid of the rule ``uniform`` without training.

    ``2^bits`` points span the range of each group, stored as a codebook with a scale and an offset per group, even if
    the scheme is symmetric. It reproduces published figures and suits values far from zero; otherwise ``absmax`` should
    be preferred, because its grid has a zero and integer kernels can read it.
    """

    name: ClassVar[str] = "minmax"

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        value = torch.from_numpy(np.ascontiguousarray(weight))
        return UniformWeight(value, scheme.bits, scheme.granularity).to_compressed(value)
