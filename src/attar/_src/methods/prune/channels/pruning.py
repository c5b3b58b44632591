"""Structured pruning of a module: what can be removed, by scores, and the module without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from attar._src.core.errors import DataError, UnknownName
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.elimination import elimination_scores
from attar._src.methods.prune.channels.input_squares import input_squares
from attar._src.methods.prune.channels.ranked import RankedChannels
from attar._src.methods.prune.channels.ranking import PartGradients, score_units
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.pruned_module import PrunedModule
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import Removable, find_removable
from attar._src.model.dependencies.find import matches_layer
from attar._src.work.compressed_model import FileInfo

_NO_INFO = FileInfo()


def rank_channels(
    module: nn.Module,
    captured: CapturedModel,
    pruning: ChannelPruning,
    gradients: Callable[[], PartGradients],
    *,
    seed: int = 0,
    judged: JudgedChannels | None = None,
    use: FileInfo = _NO_INFO,
) -> RankedChannels:
    """Return the channels of a module that can be removed, with their scores.

    Args:
        module: stays as it is.
        captured: the module, captured.
        pruning: its score and what it excludes.
        gradients: called if the score needs them, of parts of the examples.
        seed: of scores that draw.
        judged: examples for the scope ``sensitivity``, and for scores that see what weights multiply.
        use: what the file tells its user.

    Raises:
        UnknownName: there is no such score, or a glob matches no layer.
    """
    score = CHANNEL_SCORES[pruning.score]
    removable = _without(find_removable(module, captured), pruning.exclude)
    found = removable.found
    if score.inputs and judged is None:
        raise DataError(f"the score {score.name} sees what weights multiply; give inputs")
    if score.eliminates and judged is not None:
        scores = elimination_scores(module, captured, found, judged.more or judged.inputs)
    else:
        squares = input_squares(captured, judged.inputs) if score.inputs and judged is not None else {}
        scores = score_units(module, found, score, gradients() if score.gradients else (), squares, seed)
    unjudged = [group.name for group in found.groups if not scores.keys() >= set(group.units)]
    found = found.without(dict.fromkeys(unjudged, f"the score {score.name} does not judge all of it"))
    return RankedChannels(module, captured, Removable(found, removable.attributes), scores, judged, use, seed)


def prune_module(
    module: nn.Module,
    captured: CapturedModel,
    pruning: ChannelPruning,
    gradients: Callable[[], PartGradients],
    *,
    seed: int = 0,
    judged: JudgedChannels | None = None,
    use: FileInfo = _NO_INFO,
) -> PrunedModule:
    """Return a module without the channels that ``pruning`` asks for: :func:`rank_channels`, then ``without``."""
    return rank_channels(module, captured, pruning, gradients, seed=seed, judged=judged, use=use).without(pruning)


def _without(removable: Removable, globs: Sequence[str]) -> Removable:
    """Return what is removable without the groups of layers that a glob matches."""
    found = removable.found
    names = {weight for group in found.groups for weight in group.weights} | set(found.excluded)
    reasons: dict[str, str] = {}
    for glob in globs:
        matching = {name for name in names if matches_layer(name, glob)}
        if not matching:
            raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names})
        hit = [group.name for group in found.groups if not matching.isdisjoint(group.weights)]
        reasons |= dict.fromkeys(hit, f"exclude has {glob}")
    return Removable(found.without(reasons), removable.attributes)
