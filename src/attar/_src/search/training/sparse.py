"""The way ``sparse``: gradual pruning of weights, ranked over all layers, on learned grids."""

from __future__ import annotations

import math

from attar._src.search.training.way import Stages, TrainedWay, TrainingTarget

#: Bits of a weight that is not zero, about, on a grid of 4 bits.
_NONZERO = 2.5
#: Fewer zeros than this come from the rate alone; with more, layers are left without a weight.
_LEAST, _MOST = 0.5, 0.996
#: Ranks the weights of all layers, and leaves every layer some: of all together, a layer of small ones may lose all.
SCOPE = "lamp"
#: Share of the training after which all zeros are there.
_END = 0.6


class Sparser(TrainedWay):
    """Gradual magnitude pruning (Zhu and Gupta 2017, "To prune, or not to prune", section 3) within ``compress``."""

    name = "sparse"
    words = "pruned gradually, the smallest weights of all layers first, and distilled on learned grids"

    def stages(self, target: TrainingTarget) -> Stages | None:
        if target.macs is not None or target.max_bytes is None:
            return None
        sparsity = sparsity_for(target.bits_per_weight)
        if not _LEAST <= sparsity <= _MOST:
            return None
        rule = {"name": "prune", "sparsity": round(sparsity, 4), "scope": SCOPE, "end": _END}
        rule |= {"keep": list(target.keep)} if target.keep else {}
        return [target.compress(constraints=[rule], clip=1.0)]


def sparsity_for(bits: float) -> float:
    """Return the share of zeros with which a weight takes ``bits``: places by their entropy, 2.5 bits for the others.

    Example:
        >>> round(sparsity_for(0.106), 3)
        0.99
    """
    low, high = 0.5, 1.0
    if _coded(low) <= bits:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _coded(middle) > bits else (low, middle)
    return min(high, 0.9999)


def _coded(sparsity: float) -> float:
    other = 1 - sparsity
    places = 0.0 if other <= 0 else -sparsity * math.log2(sparsity) - other * math.log2(other)
    return places + _NONZERO * other
