"""Removal of whole layers of a module: what is asked for, and what was done."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from attar._src.core.errors import ModelError, SpecError, UnknownName
from attar._src.core.spec import PartShare, Spec, demand_share, registered_word
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.methods.prune.layers.runs import LayerRuns
from attar._src.methods.prune.layers.scores import LAYER_SCORES
from attar._src.methods.prune.pruned_module import PrunedModule, parameter_count
from attar._src.model.blocks.find import LayerTrials, ResidualLayers, find_residual_layers
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.fills import module_stack
from attar._src.model.dependencies.find import find_dependencies
from attar._src.model.dependencies.record import remove_layers_and_record
from attar._src.train.batch import Batch


def _demand_count_or_share(value: Any) -> Any:
    return value if isinstance(value, int) else demand_share(value)


_Amount = Annotated[Annotated[int, Field(ge=1)] | PartShare, BeforeValidator(_demand_count_or_share)]
#: Called with the mean over ranks of the scores.
Reduce = Callable[[float], float]


class LayerPruning(Spec):
    """How many layers are removed, and which.

    Attributes:
        layers: how many residual blocks or transformer layers to remove: a number, or a share of those that can be.
        macs: share of the multiplications to remove, instead of ``layers``.
        score: name of the score.
        exclude: globs of layers that stay.
    """

    layers: _Amount | None = None
    macs: PartShare | None = None
    score: Annotated[str, registered_word(LAYER_SCORES)] = "similarity"
    exclude: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_amount_of_layers(self) -> Self:
        if (self.layers is None) == (self.macs is None):
            raise ValueError("give one of the two: layers or macs")
        return self


@dataclass(frozen=True)
class RankedLayers:
    """The layers of a module that can be removed, with their scores.

    Attributes:
        module: the module, which stays as it is.
        captured: the module, captured.
        found: what can be removed.
        scores: path of a layer -> its score.
        ranked: paths, the first to be removed first, without those of which one must remain.
        macs: path -> multiplications for one example; those of the module are at ``""``.
    """

    module: nn.Module
    captured: CapturedModel
    found: ResidualLayers
    scores: Mapping[str, float]
    ranked: tuple[str, ...]
    macs: Mapping[str, int]

    def without(self, pruning: LayerPruning) -> PrunedModule:
        """Return the module without the layers that ``pruning`` asks for, those of the lowest scores.

        Raises:
            ModelError: what was chosen cannot be removed together; the message has the reason.
            SpecError: more is asked for than can be removed; the message has what can.
        """
        module, layers = self.module, self.found.layers
        chosen = _chosen(pruning, self.ranked, len(layers), self.macs)
        trials = LayerTrials(module, self.captured)
        dropped, skipped = trials.settled([each for each in layers if each.path in chosen])
        smaller = copy.deepcopy(module)
        record = remove_layers_and_record(smaller, dropped, skipped)
        figures = {
            "macs": [self.macs[""], self.macs[""] - sum(self.macs[path] for path in chosen)],
            "parameters": [parameter_count(module), parameter_count(smaller)],
            "layers": [len(layers), len(layers) - len(chosen)],
        }
        removed = tuple(each.path for each in layers if each.path in chosen)
        excluded = dict(self.found.excluded)
        return PrunedModule(smaller, record, figures, excluded, removed=removed, scores=self.scores)


def rank_layers(
    module: nn.Module,
    captured: CapturedModel,
    pruning: LayerPruning,
    batches: Callable[[], Sequence[Batch]],
    *,
    layout: ClassLayout = FROM_SHAPES,
    seed: int = 0,
    reduce: Reduce = float,
) -> RankedLayers:
    """Return the layers of a module that can be removed, with their scores.

    Args:
        module: stays as it is.
        captured: the module, captured.
        pruning: its score and what it excludes.
        batches: examples to score on.
        layout: of the loss, for scores that have one.
        seed: of scores that draw.
        reduce: the mean of a score over ranks.

    Raises:
        UnknownName: there is no such score, or a glob matches no layer.
        ModelError: nothing can be removed; the message has the reasons.
    """
    score = LAYER_SCORES[pruning.score]
    found = _without_excluded(find_residual_layers(module, captured), pruning.exclude)
    paths = [each.path for each in found.layers]
    containers = {each.container for each in found.layers if each.container is not None}
    members = {path: len([*module.get_submodule(path).children()]) for path in containers}
    if not found.removable(paths, members):
        reasons = "; ".join(f"{path}: {why}" for path, why in [*found.excluded.items()][:4])
        raise ModelError(
            f"no layer of {type(module).__name__} can be removed: of {len(paths)} that could be, one remains, and one "
            f"member of each container{f' ({reasons})' if reasons else ''}"
        )
    runs = LayerRuns(module, captured.names, found.layers, batches(), layout, seed)
    scores = {path: reduce(each) for path, each in score.score(runs).items()}
    unfit = [path for path, each in scores.items() if not math.isfinite(each)]
    if unfit:
        raise ModelError(f"the score {score.name} of {unfit[0]} is not finite; the module's outputs may overflow")
    ranked = found.removable(sorted(paths, key=lambda path: scores[path]), members)
    return RankedLayers(module, captured, found, scores, tuple(ranked), _macs_of(module, captured, paths))


def prune_layers(
    module: nn.Module,
    captured: CapturedModel,
    pruning: LayerPruning,
    batches: Callable[[], Sequence[Batch]],
    *,
    layout: ClassLayout = FROM_SHAPES,
    seed: int = 0,
    reduce: Reduce = float,
) -> PrunedModule:
    """Return a module without the layers that ``pruning`` asks for: :func:`rank_layers`, then ``without``."""
    ranked = rank_layers(module, captured, pruning, batches, layout=layout, seed=seed, reduce=reduce)
    return ranked.without(pruning)


def _chosen(pruning: LayerPruning, ranked: Sequence[str], total: int, macs: Mapping[str, int]) -> set[str]:
    """Return the layers to remove, of those that can be in order of their scores."""
    if pruning.macs is None:
        assert pruning.layers is not None
        count = pruning.layers if isinstance(pruning.layers, int) else max(round(pruning.layers * total), 1)
        if count > len(ranked):
            raise SpecError(
                f"layers={pruning.layers:g}: {len(ranked)} of {total} layers can be removed, as one remains, and one "
                f"member of each container; the most is layers={len(ranked)}"
            )
        return set(ranked[:count])
    asked, most = pruning.macs * macs[""], sum(macs[path] for path in ranked)
    if most < asked:
        raise SpecError(
            f"macs={pruning.macs:g}: the {len(ranked)} layers that can be removed have {most / macs['']:.3f} of the "
            "multiplications; ask for less, or remove channels, too"
        )
    taken: list[str] = []
    for path in ranked:
        taken.append(path)
        if sum(macs[each] for each in taken) >= asked:
            break
    for path in reversed(taken[:-1]):
        if sum(macs[each] for each in taken) - macs[path] >= asked:
            taken.remove(path)
    return set(taken)


def _macs_of(module: nn.Module, captured: CapturedModel, paths: Sequence[str]) -> dict[str, int]:
    """Return path of a layer -> its multiplications for one example; those of the module are at ``""``."""
    found, every = dict.fromkeys(paths, 0), find_dependencies(module, captured).costs
    stacks = {node.name: module_stack(node) for node in captured.evaluation.graph.nodes}
    for cost in every:
        for path in stacks[cost.node]:
            if path in found:
                found[path] += cost.macs
    return {**found, "": sum(cost.macs for cost in every)}


def _without_excluded(found: ResidualLayers, globs: Sequence[str]) -> ResidualLayers:
    """Return the layers that no glob matches."""
    reasons: dict[str, str] = {}
    paths = [each.path for each in found.layers]
    for glob in globs:
        matching = [path for path in paths if fnmatchcase(path, glob)]
        if not matching and not any(fnmatchcase(path, glob) for path in found.excluded):
            raise UnknownName("layer", glob, {*paths, *found.excluded})
        reasons |= dict.fromkeys(matching, f"exclude has {glob}")
    return found.without(reasons)
