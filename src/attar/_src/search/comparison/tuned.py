"""Options of which one is tuned, and how strongly that option compresses.

Strength 0 leaves the module as it is; a file has about ``exp(-strength)`` times the bytes of that in floating point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Stands in options for the value that is tuned.
TUNED = "tuned"


@dataclass(frozen=True)
class TunedOption:
    """An option of ``attar.quantize``, ``attar.prune`` or a stage whose value says how much a file is compressed.

    Attributes:
        name: of the option.
        kind: ``size`` in bytes, ``share`` that is removed, ``count`` of what is removed.
        strongest: the largest strength.
        mild: the strength that is tried first for a loss: most modules stand it without training.
    """

    name: str
    kind: str
    strongest: float
    mild: float

    def value(self, strength: float, floating_bytes: int) -> float:
        """Return the value of the option.

        Example:
            >>> TUNED_OPTIONS["sparsity"].value(math.log(4), 1000)
            0.75
            >>> TUNED_OPTIONS["max_bytes"].value(math.log(4), 1000)
            250
        """
        if self.kind == "size":
            return round(floating_bytes * math.exp(-strength))
        return round(1 - math.exp(-strength), 6) if self.kind == "share" else round(strength)

    def strength(self, value: float, floating_bytes: int) -> float:
        """Return the strength of a value: the inverse of :meth:`value`."""
        if self.kind == "size":
            return math.log(floating_bytes / value)
        return -math.log(1 - value) if self.kind == "share" else value


#: Name -> option.
TUNED_OPTIONS: Mapping[str, TunedOption] = {
    each.name: each
    for each in (
        TunedOption("max_bytes", "size", math.log(64), math.log(8)),
        TunedOption("sparsity", "share", math.log(200), -math.log(1 - 0.5)),
        TunedOption("channels", "share", math.log(10), -math.log(1 - 0.2)),
        TunedOption("macs", "share", math.log(50), -math.log(1 - 0.2)),
        TunedOption("layers", "count", 64, 1),
    )
}


def with_value(options: Any, value: float | None) -> Any:
    """Return options with a value in place of ``TUNED``."""
    if isinstance(options, Mapping):
        return {name: with_value(each, value) for name, each in options.items()}
    if isinstance(options, list | tuple):
        return [with_value(each, value) for each in options]
    return value if options == TUNED else options


def option_tuned(options: Any) -> TunedOption | None:
    """Return which option is ``TUNED``; None if all have values."""
    if isinstance(options, Mapping):
        for name, each in options.items():
            if each == TUNED:
                return TUNED_OPTIONS[name]
            if found := option_tuned(each):
                return found
    elif isinstance(options, list | tuple):
        return next(filter(None, map(option_tuned, options)), None)
    return None
