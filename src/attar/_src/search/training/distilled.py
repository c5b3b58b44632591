"""The way ``distilled``: the module itself, distilled on learned grids with a rate."""

from __future__ import annotations

from attar._src.search.training.way import Stages, TrainedWay, TrainingTarget

#: With fewer bits a weight, other ways are better from the start.
_FEWEST = 0.3
#: With so many, codes are fine enough for all weights to stay: of ResNet-20 in 0.77 bits a weight this way loses less
#: than fewer channels, and of LeNet-5 in 0.6.
_ENOUGH = 0.5


class Distilled(TrainedWay):
    """Quantized distillation under a budget of coded bits; all weights stay, most of them small codes."""

    name = "distilled"
    words = "distilled on learned grids whose coded bits are a term of the loss"

    def suits(self, target: TrainingTarget) -> bool:
        return target.bits_per_weight >= _ENOUGH

    def stages(self, target: TrainingTarget) -> Stages | None:
        if target.macs is not None or target.bits_per_weight < _FEWEST:
            return None
        return [target.compress()]
