"""How many channels each group loses, from measured sensitivities, under a target of what is left.

sensitivities --> integer program --> units of each group --> what is left
                        ^                                         |
                        +------- costs, where it stands ----------+
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from attar._src.methods.allocate.choose import by_name
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.prune.channels.choose import ChannelChoice, ChosenUnits, RankedScope
from attar._src.methods.prune.channels.costs import ChannelCost
from attar._src.methods.prune.channels.sensitivities import ChannelMeter
from attar._src.model.dependencies.find import Dependencies

#: Integer programs that are solved at most for one target.
_ROUNDS = 12
#: What is left is this near to the target, or another program is solved.
_NEAR = 0.01
#: A group that stays as it is.
DENSE = Level(0.0)
#: The error of outputs that were not finite: a thousand signals.
_NOT_FINITE = 1e3

#: Group -> its level.
GroupLevels = Mapping[str, Level]


@dataclass(frozen=True)
class ChannelAllocation:
    """Chooses how many channels each group loses.

    Attributes:
        meter: of the groups; its examples judge what was chosen.
        table: their sensitivities.
        choice: of a group's units; multiples and least shares keep more than a level says.
    """

    meter: ChannelMeter
    table: SensitivityTable
    choice: ChannelChoice

    def under(self, found: Dependencies, cost: ChannelCost, most: float) -> ChosenUnits | None:
        """Return the units without which a cost is at most ``most`` and the outputs err least.

        The errors of groups are taken to add up, and an integer program finds the levels with the least sum
        (:mod:`~attar._src.methods.allocate.choose`). What a group saves depends on the others: multiplications are
        products of channels. So each program has the costs of each group beside those that the one before chose, until
        the target is met closely. Of all choices that meet it, the one is taken whose outputs err least; the same share
        of all groups and the lowest scores of all are among them.

        Args:
            found: what can be removed.
            cost: of the module without units.
            most: what it may be.

        Returns:
            None if the cost is larger without all that the levels allow.
        """
        known = {layer.name: layer for layer in self.table.layers}
        names = [group.name for group in found.groups]
        errors = {
            name: {DENSE: 0.0}
            | {each.key: _NOT_FINITE if each.error is None else each.error for each in known[name].levels}
            for name in names
        }
        of = _UnitsByLevel(found, self.choice, {name: [*own] for name, own in errors.items()})
        highest = {name: max(own) for name, own in errors.items()}
        if not names or cost(of.units(highest)) > most:
            return None
        fitting = [highest, *self._searched(errors, of, cost, most)]
        even = sorted({level for own in errors.values() for level in own})
        fitting += [each for level in even if cost(of.units(each := _at_most(errors, level))) <= most][:1]
        choices = {units: _words(found, units) for units in map(of.units, fitting)}
        scopes: tuple[RankedScope, ...] = ("global", "layer")
        for scope in scopes:
            ranked = ChannelChoice(self.choice.scores, scope, self.choice.round_to, self.choice.least)
            if (chosen := ranked.under(found, cost, most)) is not None:
                choices.setdefault(chosen.units, f"as scope {scope} chooses")
        judged = {units: self.meter.error_without(units).error for units in choices}
        best = min(choices, key=judged.__getitem__)
        return ChosenUnits(
            best,
            f"{choices[best]}; relative error of the outputs {judged[best] ** 0.5:.3g} with other weights as they are",
        )

    def lowest_cost(self, found: Dependencies, cost: ChannelCost) -> float:
        """Return the cost without all that the levels allow."""
        names = {group.name for group in found.groups}
        levels = {layer.name: [each.key for each in layer.levels] for layer in self.table.layers if layer.name in names}
        of = _UnitsByLevel(found, self.choice, levels)
        return cost(of.units({name: max(own) for name, own in levels.items()}))

    def _searched(
        self, errors: Mapping[str, Mapping[Level, float]], of: _UnitsByLevel, cost: ChannelCost, most: float
    ) -> list[GroupLevels]:
        """Return the levels of integer programs that meet the target."""
        now: GroupLevels = dict.fromkeys(errors, DENSE)
        fitting, tried, aim = list[GroupLevels](), list[GroupLevels](), most
        for _ in range(_ROUNDS):
            units = of.units(now)
            here = cost(units)
            sizes = {
                name: {level: cost(units - of.all(name) | of.own(name, level)) - here for level in own}
                for name, own in errors.items()
            }
            chosen = by_name(errors, sizes, aim - here)
            if chosen is None or chosen in tried:
                # The costs of two choices send each to the other, or nothing is left to give: ask for a little less.
                aim -= _NEAR * most
                if chosen is None:
                    continue
            tried.append(chosen)
            now = chosen
            left = cost(of.units(now))
            if left <= most:
                fitting.append(now)
                if left >= (1 - _NEAR) * most:
                    break
        return fitting


class _UnitsByLevel:
    """The units that each group loses at each level."""

    def __init__(self, found: Dependencies, choice: ChannelChoice, levels: Mapping[str, list[Level]]) -> None:
        groups = {group.name: group for group in found.groups}
        self._all = {name: frozenset(groups[name].units) for name in levels}
        self._own = {
            (name, level): choice.of_group(found, groups[name], level.value) if level != DENSE else frozenset[int]()
            for name, own in levels.items()
            for level in own
        }

    def all(self, name: str) -> frozenset[int]:
        """Return the units of a group."""
        return self._all[name]

    def own(self, name: str, level: Level) -> frozenset[int]:
        """Return those of a group at a level."""
        return self._own[name, level]

    def units(self, levels: GroupLevels) -> frozenset[int]:
        """Return those of all groups."""
        return frozenset[int]().union(*(self._own[name, level] for name, level in levels.items()))


def _at_most(errors: Mapping[str, Mapping[Level, float]], most: Level) -> dict[str, Level]:
    return {name: max(level for level in own if level <= most) for name, own in errors.items()}


def _words(found: Dependencies, units: Collection[int]) -> str:
    """Return which share each group loses: multiples and least shares keep more than its level says."""
    counts = {group.name: sum(each in units for each in group.units) / len(group.units) for group in found.groups}
    return ", ".join(f"{name} {share:.3g}" for name, share in counts.items())
