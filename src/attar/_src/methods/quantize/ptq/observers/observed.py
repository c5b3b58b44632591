"""What a post-training stage observed of one graph while its weights were solved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from attar._src.model.collect import Clip, Request
from attar._src.model.statistics import ChannelMean, Statistic


@dataclass
class Observed:
    """What was observed of the sites of a graph.

    Attributes:
        seen: site -> its statistic.
        clips: source of a site -> the bounds that its values had.
        means: layer whose bias is corrected -> the mean of what it reads.
        left_out: values -> how many of how many elements their statistics left out.
        unseen: weight solved without the inputs that the solver would see -> why.
    """

    seen: dict[Any, Any]
    clips: dict[str, Clip]
    means: dict[fx.Node, ChannelMean] = field(default_factory=dict)
    left_out: dict[tuple[str, ...], tuple[int, int]] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    def count(self, requests: Iterable[Request], found: Iterable[Statistic]) -> None:
        """Note the elements that statistics left out."""
        for request, statistic in zip(requests, found, strict=True):
            if statistic.left_out:
                self.left_out[request.values] = (statistic.left_out, statistic.elements)

    @property
    def warnings(self) -> list[str]:
        """Sentences about elements that were left out."""
        if not self.left_out:
            return []
        counted = [f"{' and '.join(map(repr, v))} ({n:,} of {of:,} elements)" for v, (n, of) in self.left_out.items()]
        more = f" and {len(counted) - 3} more values" if len(counted) > 3 else ""
        return [
            f"calibration left out NaN and infinities, and the vectors that hold them: {', '.join(counted[:3])}{more}; "
            "if the module does not expect them, look at the inputs (a wholly padded example, the logarithm of zero)"
        ]
