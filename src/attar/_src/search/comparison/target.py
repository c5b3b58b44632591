"""What all methods are made equal in: the bytes of their files, or what they lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from attar._src.core.errors import SpecError
from attar._src.measure.chance import is_ruined
from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.comparison.tuned import TunedOption

#: A file has as many bytes as were asked for if it has at most this share less.
NEAR_BYTES = 0.02
#: Strengths between which no more is tried for a loss: about as many bytes, as a share.
_NEAR_DROP = 0.08
#: The same where each try is a training.
_NEAR_TRAINED = 0.25
#: Trainings for one number of bytes.
_TRAININGS = 3
#: Strengths between which no more is tried for bytes.
_NEAREST = 0.015
#: Times as strong as before, as long as a loss holds.
_STEP = 1.5


@dataclass(frozen=True)
class EqualTarget:
    """The bytes that every file may have, or the points that it may lose.

    Attributes:
        what: of the two.
        most: bytes, or points.
    """

    what: Literal["bytes", "drop"]
    most: float

    def holds(self, tried: ComparisonTry) -> bool:
        """Return whether a file holds it; no loss of the main output agrees to one that ruins another."""
        value = tried.file_bytes if self.what == "bytes" else math.inf if is_ruined(tried.others) else tried.drop
        return value is not None and math.isfinite(value) and value <= self.most

    def reached(self, tried: ComparisonTry) -> bool:
        """Return whether a file holds it and uses it: all of the bytes, but for 2 %."""
        return self.holds(tried) and (self.what == "drop" or (tried.file_bytes or 0) >= (1 - NEAR_BYTES) * self.most)

    def words(self, unit: str) -> str:
        """Return the target in words; ``unit`` of a drop."""
        return f"{self.most:,.0f} bytes" if self.what == "bytes" else f"a loss of {self.most:g} {unit}"

    def nearest(self, tries: Sequence[ComparisonTry]) -> float | None:
        """Return the bytes, or the loss, of the file that comes nearest; None if there is none."""
        values = [each.file_bytes if self.what == "bytes" else each.drop for each in tries]
        return min((each for each in values if each is not None), default=None)

    def why(self, best: ComparisonTry | None, tries: Sequence[ComparisonTry]) -> str:
        """Return why a method has no file, or one of fewer bytes; empty if it reaches the target."""
        if best is not None and self.what == "bytes" and best.ruined:
            return f"ruined: {_lost(best)}"
        if best is not None:
            return "" if self.reached(best) else f"has {best.file_bytes:,} bytes at its largest"
        nearest = self.nearest(tries)
        if nearest is None:
            return next(each.failed for each in reversed(tries) if each.failed)
        if self.what == "drop":
            return f"loses {nearest:.3g} at least" if nearest > self.most else "ruins an output beside the main one"
        if (ruined := self.ruined(tries)) is not None:
            return f"{_lost(ruined)} with {ruined.file_bytes:,} bytes already"
        return f"{nearest:,.0f} bytes at least"

    def ruined(self, tries: Sequence[ComparisonTry]) -> ComparisonTry | None:
        """Return the smallest file that lost too much to be of use, and has more bytes yet; None without."""
        over = [each for each in tries if each.ruined and each.file_bytes is not None and each.file_bytes > self.most]
        return min(over, key=lambda each: each.file_bytes or 0, default=None)

    def best(self, tries: Sequence[ComparisonTry]) -> ComparisonTry | None:
        """Return the file that serves the target best: at equal bytes that with the least loss, else the smallest.

        None if none holds it.
        """
        holding = [each for each in tries if self.holds(each)]
        if self.what == "drop":
            return min(holding, key=lambda each: (each.file_bytes, each.drop), default=None)
        near = [each for each in holding if self.reached(each)]
        if not near and holding:
            # What takes fewer bytes at its largest, as 8 bits everywhere do.
            most = max(each.file_bytes or 0 for each in holding)
            near = [each for each in holding if (each.file_bytes or 0) >= (1 - NEAR_BYTES) * most]
        return min(near, key=lambda each: (each.drop, each.file_bytes), default=None)


def _lost(tried: ComparisonTry) -> str:
    if is_ruined(tried.others):
        return "loses more than half of an output beside the main one"
    return f"loses {tried.drop:.3g}"


def equal_targets(size: Any, drop: Any) -> list[EqualTarget]:
    """Return the targets that are given, none of neither.

    Raises:
        SpecError: no file can have them.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size <= 0):
        raise SpecError(f"bytes={size!r}: give the bytes that a file may have, a whole number such as 40_000")
    if drop is not None and (isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop < math.inf):
        raise SpecError(f"drop={drop!r}: give the points that a file may lose, 0 or more")
    asked = [EqualTarget("bytes", int(size))] if size is not None else []
    return asked + ([EqualTarget("drop", float(drop))] if drop is not None else [])


def next_strength(
    option: TunedOption | None,
    target: EqualTarget,
    tries: Sequence[ComparisonTry],
    floating_bytes: int,
    *,
    trained: bool = False,
    first: float | None = None,
) -> float | None:
    """Return with which strength of an option to go on towards a target; None if no more is to be tried.

    It follows from the tries before, so that a comparison that was cut goes on as it would have. Bytes of the integer
    program are asked for as they are; others are sought by interpolation of their logarithms, losses from a mild
    strength upwards, then by bisection. Where a file is ruined that has too many bytes yet, no smaller one is made.

    Args:
        option: that is tuned; None where there is one file only.
        target: to reach.
        tries: of this option, for this target or another, failures included: they were too strong.
        floating_bytes: bytes of the file in floating point.
        trained: whether a try is a training: losses are sought less closely then, and bytes, which a training reaches
            nearly, are asked for again as many fewer or more as came.
        first: strength to begin with for bytes, if one is known.
    """
    if option is None:
        return None if tries else 0.0
    if target.what == "bytes" and floating_bytes <= target.most:
        return None
    if target.what == "bytes" and option.kind == "size":
        made = [each for each in tries if each.file_bytes is not None]
        if trained and any(map(target.reached, tries)):
            return None
        wanted = option.strength(target.most, floating_bytes)
        if trained and made and len(made) < _TRAININGS:
            last = made[-1]
            wanted = last.strength + math.log((last.file_bytes or 1) / ((1 - NEAR_BYTES / 2) * target.most))
        return None if any(abs(each.strength - wanted) < 1e-9 for each in tries) else wanted
    if target.what == "bytes" and (any(map(target.reached, tries)) or target.ruined(tries) is not None):
        return None
    if target.what == "bytes" and not tries and first is not None:
        return first
    low, high = _bracket(target, tries)
    found = _between(option, target, low, high, floating_bytes, _NEAR_TRAINED if trained else _NEAR_DROP)
    return None if found is None or any(abs(each.strength - found) < 1e-9 for each in tries) else found


#: Strength and bytes, where these are known.
_End = tuple[float, int | None]


def _bracket(target: EqualTarget, tries: Sequence[ComparisonTry]) -> tuple[_End, _End | None]:
    """Return the strongest end that is too weak, or holds a loss, and the weakest end beyond it."""
    if target.what == "bytes":
        before = [each for each in tries if each.file_bytes is not None and each.file_bytes > target.most]
    else:
        before = [each for each in tries if target.holds(each)]
    low = max(((each.strength, each.file_bytes) for each in before), key=lambda end: end[0], default=(0.0, None))
    beyond = [each for each in tries if each.strength > low[0]]
    high = min(((each.strength, each.file_bytes) for each in beyond), key=lambda end: end[0], default=None)
    return low, high


def _between(
    option: TunedOption, target: EqualTarget, low: _End, high: _End | None, floating_bytes: int, near_drop: float
) -> float | None:
    start, first = low[0], low[1] or floating_bytes
    sought = (1 - NEAR_BYTES / 2) * target.most
    if target.what == "bytes" and high is None:
        if start >= option.strongest:
            return None
        step = max(math.log(first / sought), 0.05) * (1.5 if start else 1.0)
        found = min(start + step, option.strongest)
        return found if option.kind != "count" else float(max(round(found), round(start) + 1))
    if high is None:
        # A loss, from what most modules stand: the middle of all strengths ruins what is not trained.
        if start >= option.strongest:
            return None
        found = min(max(_STEP * start, option.mild), option.strongest)
        return found if option.kind != "count" else float(max(round(found), round(start) + 1))
    end, last = high
    share = 0.5
    if target.what == "bytes" and last is not None and last < first:
        share = min(max(math.log(first / sought) / math.log(first / last), 0.1), 0.9)
    if option.kind == "count":
        found = round(start + share * (end - start))
        found = min(max(found, round(start) + 1), round(end) - 1)
        return float(found) if start < found < end else None
    near = _NEAREST if target.what == "bytes" else near_drop
    return start + share * (end - start) if end - start > near else None
