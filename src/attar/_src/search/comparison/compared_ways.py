"""Ways to train that a comparison has beside those of a search: each part of these alone, for what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attar._src.search.training.registry import TRAINED_WAYS
from attar._src.search.training.sparse import SCOPE
from attar._src.search.training.way import Stages, TrainedWay, TrainingTarget

#: Stages for a target, and for the value of the option that is tuned; None where a way does not apply.
WayStages = Callable[[TrainingTarget, float], Stages | None]
#: Share of the training after which all zeros are there.
_END = 0.6


def _on_labels(target: TrainingTarget, _: float) -> Stages | None:
    """Learned grids within the bytes, trained on labels alone."""
    return [target.compress(alpha=0.0, beta=1.0)] if target.labels else None


def _fewer_channels(target: TrainingTarget, share: float) -> Stages | None:
    """A narrower student in floating point."""
    score = "taylor" if target.labels else "l2"
    return [{"stage": "prune_channels", "channels": share, "score": score}, target.distill(1.0)]


def _fewer_layers(target: TrainingTarget, count: float) -> Stages | None:
    """A shallower student in floating point."""
    return [{"stage": "prune_layers", "layers": round(count)}, target.distill(1.0)]


def _gradual(target: TrainingTarget, sparsity: float) -> Stages | None:
    """Weights in floating point that become zero during a training on labels."""
    if not target.labels:
        return None
    rule = {"name": "prune", "sparsity": sparsity, "scope": SCOPE, "end": _END}
    return [{**target.distill(1.0), "alpha": 0.0, "beta": 1.0, "constraints": [rule]}]


def _as_in_a_search(way: TrainedWay) -> WayStages:
    return lambda target, _: way.stages(target)


#: Name -> stages.
COMPARED_WAYS: Mapping[str, WayStages] = {
    **{way.name: _as_in_a_search(way) for way in TRAINED_WAYS.values()},
    "grids on labels": _on_labels,
    "fewer channels": _fewer_channels,
    "fewer layers": _fewer_layers,
    "gradual": _gradual,
}
