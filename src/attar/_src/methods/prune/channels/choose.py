"""Choice of the units to remove: a share of each group, the lowest of all, or as many as a target asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Literal, NamedTuple

from attar._src.methods.prune.channels.costs import ChannelCost
from attar._src.model.dependencies.find import ChannelGroup, Dependencies

#: Scopes by scores alone.
RankedScope = Literal["layer", "global"]
#: How many units that are needed are passed over while others come back.
_ROUNDS = 8


class ChosenUnits(NamedTuple):
    """Units to remove, and how they were chosen, in words; empty if that was asked for."""

    units: frozenset[int]
    note: str = ""


@dataclass(frozen=True)
class ChannelChoice:
    """How units are chosen.

    Attributes:
        scores: of the units.
        scope: ``layer`` removes the same share of each tier, ``global`` the lowest scores of all.
        round_to: the channels that remain of a tier are a multiple of this, if it has so many.
        least: the share of a tier that remains at least.

    Tiers, not groups, keep their shares: padded shortcuts make one group of layers with 16, 32 and 64 channels, and of
    its lowest units too many may be the 16 that all of these have.
    """

    scores: Mapping[int, float]
    scope: RankedScope
    round_to: int = 1
    least: float = 0.0

    def of_share(self, found: Dependencies, share: float) -> frozenset[int]:
        """Return ``round(share n)`` of the ``n`` units of each tier, or of all; the lowest scores, first come first.

        Every axis keeps one channel, and every tier its least share; rounding to multiples keeps more.
        """
        tiers = [(channels, self._ranked(units)) for group in found.groups for channels, units in group.tiers]
        if self.scope == "layer":
            counts = [round(share * len(units)) for _, units in tiers]
        else:
            every = sorted(
                (self.scores[unit], place, tier)
                for tier, (_, units) in enumerate(tiers)
                for place, unit in enumerate(units)
            )
            lowest = Counter(tier for _, _, tier in every[: round(share * len(every))])
            counts = [lowest[tier] for tier in range(len(tiers))]
        chosen = [units[: self._allowed(len(units), count)] for (_, units), count in zip(tiers, counts, strict=True)]
        # Before multiples are made, which what comes back could break; they keep more alone.
        removable = set(found.with_one_left([unit for units in chosen for unit in units]))
        removed: list[int] = []
        for (channels, units), mine in zip(tiers, chosen, strict=True):
            removed += self._rounded(channels, len(units), [unit for unit in mine if unit in removable])
        return frozenset(removed)

    def of_group(self, found: Dependencies, group: ChannelGroup, share: float) -> frozenset[int]:
        """Return the units of :meth:`of_share` where nothing but one group is removed, the same share of its tiers."""
        return replace(self, scope="layer").of_share(replace(found, groups=(group,)), share)

    def lowest_cost(self, found: Dependencies, cost: ChannelCost) -> float:
        """Return the cost without all that may be removed."""
        return cost(self.of_share(found, 1.0))

    def under(self, found: Dependencies, cost: ChannelCost, most: float) -> ChosenUnits | None:
        """Return the fewest units without which a cost is at most ``most``, by bisection over :meth:`of_share`.

        The last of the lowest scores of all may save much more than is missing, as a channel of a residual stream does.
        Then the highest scores before it come back as far as they are not needed.

        Args:
            found: what can be removed.
            cost: of the module without units, such as its multiplications.
            most: what it may be.

        Returns:
            None if the cost is larger without all that may be removed.
        """
        units = sum(len(group.units) for group in found.groups)
        if not units or self.lowest_cost(found, cost) > most:
            return None
        low, high = 0, units
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(self.of_share(found, middle / units)) <= most else (middle, high)
        removed = self.of_share(found, high / units)
        eases = self.scope == "global" and self.round_to == 1
        return ChosenUnits(self._eased(removed, cost, most) if eases else removed)

    def _eased(self, removed: frozenset[int], cost: ChannelCost, most: float) -> frozenset[int]:
        """Return units without those, highest scores first, that are not needed for the cost.

        The very highest stays, and so do up to ``_ROUNDS`` others that save too much to come back.
        """
        _, *rest = sorted(removed, key=lambda unit: (-self.scores[unit], unit))
        for _ in range(_ROUNDS):
            low, high = 0, len(rest) + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if cost(removed.difference(rest[:middle])) <= most else (low, middle)
            removed = removed.difference(rest[:low])
            rest = rest[low + 1 :]
        return removed

    def _ranked(self, units: Sequence[int]) -> list[int]:
        return sorted(units, key=lambda unit: self.scores[unit])

    def _allowed(self, total: int, count: int) -> int:
        """Return how many units of a tier of ``total`` may be removed if ``count`` are asked for."""
        return total - max(total - count, 1, round(self.least * total))

    def _rounded(self, channels: int, total: int, removed: list[int]) -> list[int]:
        """Return the units to remove without the last, so that a multiple of channels remains of a tier."""
        step = self.round_to // gcd(self.round_to, channels)
        left = total - len(removed)
        return removed[: max(total - -(-left // step) * step, 0)]
