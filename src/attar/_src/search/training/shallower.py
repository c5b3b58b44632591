"""The way ``shallower``: residual layers are removed, then the module is distilled, then on learned grids."""

from __future__ import annotations

from attar._src.search.training.way import Stages, TrainedWay, TrainingTarget

#: Bits that a weight of the module takes, about.
_BITS = 2.0
#: Shares of the layers that are worth removing.
_LEAST, _MOST = 0.1, 0.6


class Shallower(TrainedWay):
    """A student without some of the residual blocks or transformer layers."""

    name = "shallower"
    words = "fewer residual blocks or transformer layers, then distilled, then on learned grids"

    def stages(self, target: TrainingTarget) -> Stages | None:
        if target.layers < 2:
            return None
        if target.macs is not None:
            removed = {"stage": "prune_layers", "macs": round(target.macs, 3)}
        elif target.max_bytes is not None:
            layers = 1 - 8 * target.code_bytes / (_BITS * target.weights)
            if layers < _LEAST:
                return None
            removed = {"stage": "prune_layers", "layers": round(min(layers, _MOST), 3)}
        else:
            return None
        return [removed, target.distill(0.5), target.compress()]
