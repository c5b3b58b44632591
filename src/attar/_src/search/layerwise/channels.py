"""Channels kept of each group, ranked once: the layerwise problem of the stage ``prune_channels``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from attar._src.methods.allocate.level import Level
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.ranked import RankedChannels
from attar._src.methods.prune.channels.sensitivities import FLOAT_BYTES
from attar._src.search.layerwise.problem import LayerChoice, LayerFacts, LayerwiseProblem


def channel_problem(
    ranked: RankedChannels, pruning: ChannelPruning, layers: Sequence[LayerFacts], shares: Sequence[float]
) -> LayerwiseProblem:
    """Return the problem of the shares of its units that each group loses, in bytes of the file in floating point.

    Bytes of groups do not add up, as a weight between two has channels of both. The problem's ``whole`` counts them
    exactly; its costs are those of a group where all others lose the middle share.

    Args:
        ranked: the channels, with the examples on which each group is measured alone.
        pruning: what other groups lose, and the score.
        layers: of the groups, by their names.
        shares: from 0 to below 1.
    """
    found, of_module = ranked.removable.found, ranked.costs
    shares = sorted(set(shares), reverse=True)
    names = [each.name for each in layers]

    @cache
    def units(name: str, share: float) -> frozenset[int]:
        one = pruning.model_copy(update={"channels": None, "overrides": {name: share}})
        return ranked.units_by_group(found, one)

    mine = {unit for group in found.groups if group.name in names for unit in group.units}
    others = ranked.units_by_group(found, pruning) - mine

    def whole(chosen: Mapping[str, LayerChoice]) -> float:
        removed = others.union(*(units(name, share) for name, (share,) in chosen.items()))
        return float(FLOAT_BYTES * of_module.elements(removed))

    middle = dict.fromkeys(names, (shares[len(shares) // 2],))
    least = {name: whole({**middle, name: (shares[0],)}) for name in names}
    costs: dict[str, dict[LayerChoice, float]] = {
        name: {(share,): whole({**middle, name: (share,)}) - least[name] for share in shares} for name in names
    }
    return LayerwiseProblem(
        layers,
        {"channels": tuple(shares)},
        costs,
        whole(middle) - sum(costs[name][choice] for name, choice in middle.items()),
        _errors(ranked, pruning, names, shares),
        whole=whole,
    )


def _errors(
    ranked: RankedChannels, pruning: ChannelPruning, names: Sequence[str], shares: Sequence[float]
) -> dict[str, dict[LayerChoice, float]]:
    """Return group -> choice -> the error of the output where a trial prunes this group alone."""
    meter = ranked.meter([float(share) for share in shares if share > 0], pruning.score)
    meter = replace(meter, choice=ranked.choice_by_group(pruning))
    found: dict[str, dict[LayerChoice, float]] = {}
    for layer in meter.measure():
        if layer.name in names:
            errors = {each.key: each.error for each in layer.levels} | {Level(0.0): 0.0}
            # An output that was not finite counts as a thousand signals.
            found[layer.name] = {
                (share,): 1e3 if (error := errors[Level(float(share))]) is None else error for share in shares
            }
    return found
