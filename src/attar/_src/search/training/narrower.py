"""The way ``narrower``: channels are removed, then the smaller module is distilled, then on learned grids."""

from __future__ import annotations

import math

from attar._src.search.training.way import Stages, TrainedWay, TrainingTarget

#: Bits that a weight of the narrow module takes, about.
_BITS = 2.2
#: Shares of the channels that are worth removing; the stage leaves a tenth of each layer.
_LEAST, _MOST = 0.1, 0.88


class Narrower(TrainedWay):
    """A student with fewer channels, heads or hidden units, which starts from the weights of the whole module."""

    name = "narrower"
    words = "fewer channels, then distilled, then on learned grids"

    def stages(self, target: TrainingTarget) -> Stages | None:
        amount: dict[str, float] = {}
        if target.macs is not None:
            amount = {"macs": round(target.macs, 3)}
        elif target.max_bytes is not None:
            # Weights have channels on two axes.
            channels = 1 - math.sqrt(min(8 * target.code_bytes / (_BITS * target.weights), 1.0))
            if not _LEAST <= channels <= _MOST:
                return None
            amount = {"channels": round(channels, 3)}
        if not amount:
            return None
        score = "taylor" if target.labels else "l2"
        return [{"stage": "prune_channels", **amount, "score": score}, target.distill(0.5), target.compress()]
