"""Choice of the units to remove: a share of each group, the lowest of all, or as many as a target asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

from attar._src.core.errors import SpecError
from attar._src.model.dependencies.find import ChannelGroup, Dependencies

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class ChannelChoice:
    """How units are chosen.

    Attributes:
        scores: of the units.
        scope: ``layer`` removes the same share of each group, ``global`` the lowest scores of all groups.
        round_to: the channels that remain of a group are a multiple of this, if it has so many.
        least: the share of a group that remains at least.
    """

    scores: Mapping[int, float]
    scope: Scope
    round_to: int = 1
    least: float = 0.0

    def of_share(self, found: Dependencies, share: float) -> frozenset[int]:
        """Return ``round(share n)`` of the ``n`` units of each group, or of all; the lowest scores, first come first.

        Every axis keeps one channel, and every group its least share; rounding to multiples keeps more.
        """
        ranked = {group.name: self._ranked(group) for group in found.groups}
        if self.scope == "layer":
            counts = {group.name: round(share * len(group.units)) for group in found.groups}
        else:
            every = sorted(
                (self.scores[unit], place, name) for name, units in ranked.items() for place, unit in enumerate(units)
            )
            lowest = [name for _, _, name in every[: round(share * len(every))]]
            counts = {name: lowest.count(name) for name in ranked}
        removed: list[int] = []
        for group in found.groups:
            removed += self._rounded(group, ranked[group.name][: self._allowed(group, counts[group.name])])
        return frozenset(found.with_one_left(removed))

    def of_macs(self, found: Dependencies, share: float) -> frozenset[int]:
        """Return the fewest units that save this share of the multiplications, by bisection over :meth:`of_share`.

        Raises:
            SpecError: removing all that may be removed saves less; the message has how much.
        """
        whole = found.macs()
        units = sum(len(group.units) for group in found.groups)

        def saved(count: int) -> float:
            return 1 - found.macs(self.of_share(found, count / units)) / whole

        if not units or saved(units) < share:
            most = saved(units) if units else 0.0
            raise SpecError(
                f"macs={share:g}: all that can be removed saves {most:.3f} of the multiplications; ask for less"
            )
        low, high = 0, units
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if saved(middle) >= share else (middle, high)
        return self.of_share(found, high / units)

    def _ranked(self, group: ChannelGroup) -> list[int]:
        return sorted(group.units, key=lambda unit: self.scores[unit])

    def _allowed(self, group: ChannelGroup, count: int) -> int:
        """Return how many units of a group may be removed if ``count`` are asked for."""
        total = len(group.units)
        return total - max(total - count, 1, round(self.least * total))

    def _rounded(self, group: ChannelGroup, removed: Sequence[int]) -> list[int]:
        """Return the units to remove without the last of each tier, of which a multiple remains."""
        kept = []
        for channels, tier in group.tiers:
            step = self.round_to // gcd(self.round_to, channels)
            mine = [unit for unit in removed if unit in tier]
            left = len(tier) - len(mine)
            kept += mine[: max(len(tier) - -(-left // step) * step, 0)]
        return kept
