"""Structured pruning of a module: what is asked for, and what was done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from attar._src.core.errors import ModelError, UnknownName
from attar._src.core.spec import Spec
from attar._src.methods.prune.channels.choose import ChannelChoice, Scope
from attar._src.methods.prune.channels.ranking import score_units
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES
from attar._src.methods.prune.pruned_module import PrunedModule, parameter_count
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import Removable, find_removable, settle
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.dependencies.record import remove_and_record

_Share = Annotated[float, Field(gt=0, lt=1)]
#: Name of a parameter -> the gradient of a loss.
Gradients = Mapping[str, torch.Tensor]


class ChannelPruning(Spec):
    """How many channels are removed, and which.

    A *unit* is what can only be removed together: a channel with all that reads it or is added to it, an attention
    head, a hidden unit of an LSTM with its gates, a group of a grouped convolution. Units that are output channels of
    the same layers are a group.

    Attributes:
        channels: share of the units to remove.
        macs: share of the multiplications to remove, instead of ``channels``.
        score: name of the score.
        scope: ``layer`` removes the same share of every tier, the channels that the same layers have; ``global`` the
            lowest scores of all; by default ``layer`` with ``channels`` and ``global`` with ``macs``.
        exclude: globs of layers or weights whose output channels stay.
        round_to: what remains of a tier is a multiple of this, where it has so many channels.
        least: share of each tier that remains.
    """

    channels: _Share | None = None
    macs: _Share | None = None
    score: str = "l2"
    scope: Scope | None = None
    exclude: tuple[str, ...] = ()
    round_to: Annotated[int, Field(ge=1)] = 1
    least: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.channels is None) == (self.macs is None):
            raise ValueError("give one of the two: channels or macs")
        return self


@dataclass(frozen=True)
class RankedChannels:
    """The channels of a module that can be removed, with their scores.

    Attributes:
        module: the module, which stays as it is.
        captured: the module, captured.
        removable: what can be removed.
        scores: of the units.
    """

    module: nn.Module
    captured: CapturedModel
    removable: Removable
    scores: Mapping[int, float]

    def choice(self, pruning: ChannelPruning) -> ChannelChoice:
        """Return how units are chosen."""
        by_default: Scope = "global" if pruning.macs is not None else "layer"
        return ChannelChoice(self.scores, pruning.scope or by_default, pruning.round_to, pruning.least)

    def most_macs(self, pruning: ChannelPruning) -> float:
        """Return the share of the multiplications that can be removed."""
        found = self.removable.found
        return 1 - found.macs(self.choice(pruning).of_share(found, 1.0)) / max(found.macs(), 1)

    def without(self, pruning: ChannelPruning) -> PrunedModule:
        """Return the module without the channels that ``pruning`` asks for.

        Raises:
            ModelError: nothing can be removed, or not what was chosen of several groups together; the message has the
                reasons.
            SpecError: the target cannot be reached.
        """
        module, choice = self.module, self.choice(pruning)

        def choose(found: Dependencies) -> frozenset[int]:
            if not found.groups:
                reasons = "; ".join(f"{name}: {why}" for name, why in [*found.excluded.items()][:6])
                reasons = reasons or "it has no layers"
                raise ModelError(f"no channel of {type(module).__name__} can be removed: {reasons}")
            if pruning.macs is not None:
                return choice.of_macs(found, pruning.macs)
            assert pruning.channels is not None
            return choice.of_share(found, pruning.channels)

        removable, units = settle(module, self.captured, self.removable, choose)
        found, smaller = removable.found, copy.deepcopy(module)
        record = remove_and_record(smaller, removable, units)
        figures = {
            "macs": [found.macs(), found.macs(units)],
            "parameters": [parameter_count(module), parameter_count(smaller)],
        }
        groups = {g.name: (sum(unit in units for unit in g.units), len(g.units)) for g in found.groups}
        after = found.widths(units)
        widths = {name: (width, after[name]) for name, width in found.widths().items()}
        return PrunedModule(smaller, record, figures, dict(found.excluded), groups, widths)


def rank_channels(
    module: nn.Module,
    captured: CapturedModel,
    pruning: ChannelPruning,
    gradients: Callable[[], Gradients],
    *,
    seed: int = 0,
) -> RankedChannels:
    """Return the channels of a module that can be removed, with their scores.

    Args:
        module: stays as it is.
        captured: the module, captured.
        pruning: its score and what it excludes.
        gradients: called if the score needs them.
        seed: of scores that draw.

    Raises:
        UnknownName: there is no such score, or a glob matches no layer.
    """
    score = CHANNEL_SCORES[pruning.score]
    removable = _without(find_removable(module, captured), pruning.exclude)
    found = removable.found
    scores = score_units(module, found, score, gradients() if score.gradients else {}, seed)
    unjudged = [group.name for group in found.groups if not scores.keys() >= set(group.units)]
    found = found.without(dict.fromkeys(unjudged, f"the score {score.name} does not judge all of it"))
    return RankedChannels(module, captured, Removable(found, removable.attributes), scores)


def prune_module(
    module: nn.Module,
    captured: CapturedModel,
    pruning: ChannelPruning,
    gradients: Callable[[], Gradients],
    *,
    seed: int = 0,
) -> PrunedModule:
    """Return a module without the channels that ``pruning`` asks for: :func:`rank_channels`, then ``without``."""
    return rank_channels(module, captured, pruning, gradients, seed=seed).without(pruning)


def _without(removable: Removable, globs: Sequence[str]) -> Removable:
    """Return what is removable without the groups of layers that a glob matches."""
    found = removable.found
    names = {weight for group in found.groups for weight in group.weights} | set(found.excluded)
    reasons: dict[str, str] = {}
    for glob in globs:
        matching = {name for name in names if fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob)}
        if not matching:
            raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names})
        hit = [group.name for group in found.groups if not matching.isdisjoint(group.weights)]
        reasons |= dict.fromkeys(hit, f"exclude has {glob}")
    return Removable(found.without(reasons), removable.attributes)
