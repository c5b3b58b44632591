"""What a search trains next: the way that held so far, at the next size; the others where it does not hold."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from attar._src.search.goal import Goal
from attar._src.search.tried_file import TriedFile

#: A target of training: ``{"max_bytes": 9000}``, or ``{"macs": 0.3}``, the share of the multiplications to remove.
Target = Mapping[str, float]
#: The ways that have stages for a target, the likeliest to hold first.
Ranked = Callable[[Target], Sequence[str]]

#: Ratio of two sizes while files hold, and of two between which no more is tried.
_STEP, _NEAR = 0.4, 1.15
#: How many times ``3 max_drop + 1`` points a file lost -> with how many times its bytes its way is not tried.
_EASIER = {4.0: 4.0, 2.0: 2.0, 1.0: 1.4}
#: Share of the bytes allowed that a file is trained for: the coded bits fluctuate in the last steps.
_WITHIN = 0.98
#: No file of a network has fewer bytes.
_SMALLEST = 500
#: Shares of the multiplications that are removed one after the other while files hold.
_SHARES = (0.25, 0.45, 0.6, 0.75)
#: Name of a step towards a size.
_SIZED = re.compile(r"([\d,]+) bytes, trained, (\w+)")
#: Share of the time allowed that the multiplications are reduced to, and what more is removed if that is not in time.
_TIMELY, _MORE = 0.92, 0.12


@dataclass(frozen=True)
class TrainedStep:
    """A file to train.

    Attributes:
        way: its name in the registry.
        target: what the file should become.
        epochs: of a training that is shorter for lack of time.
    """

    way: str
    target: Target
    epochs: int | None = None

    @property
    def name(self) -> str:
        """The step in words."""
        size = self.target.get("max_bytes")
        what = f"{self.target['macs']:.0%} fewer multiplications" if size is None else f"{size:,.0f} bytes"
        return f"{what}, trained, {self.way}"


@dataclass(frozen=True)
class _Seen:
    """What was tried so far."""

    goal: Goal
    files: Mapping[str, TriedFile]
    failed: Mapping[str, str]
    skipped: Collection[str]
    ranked: Ranked

    def examine(self, target: Target) -> TrainedStep | bool:
        """Return what to train for a target; whether a file held if there is nothing left to try."""
        steps = [TrainedStep(way, target) for way in self.ordered(target)]
        if any(step.name in self.files and self.goal.holds(self.files[step.name]) for step in steps):
            return True
        missed = [each.lost for each in self.files.values() if each.way and dict(each.target) == dict(target)]
        if len(missed) > 1 and self._far(min(missed)):
            return False  # what time is left goes to sizes that are likelier to hold
        untried = (each for each in steps if each.name not in {*self.files, *self.failed, *self.skipped})
        return next(untried, False)

    def ordered(self, target: Target) -> list[str]:
        """Return the ways for a target: those that held nearest to it, new ones, those that nearly held."""
        keys = dict[str, tuple[int, float]]()
        for place, way in enumerate(self.ranked(target)):
            own = [each for each in self.files.values() if each.way == way]
            held = [each.file_bytes for each in own if self.goal.holds(each) and _is_easier(each.target, target)]
            missed = [each for each in own if not self.goal.holds(each)]
            if not self._has_failed(way, target) and not any(self._is_hopeless(each, target) for each in missed):
                least = min((each.lost for each in missed), default=0.0)
                keys[way] = (0, min(held)) if held else (2, least) if missed else (1, place)
        return sorted(keys, key=lambda way: keys[way])

    def _has_failed(self, way: str, target: Target) -> bool:
        """Return whether a way made no file for a target that was easier. Of a failure only the name is known."""
        found = [match for each in self.failed if (match := _SIZED.fullmatch(each)) and match[2] == way]
        most = max([int(match[1].replace(",", "")) for match in found], default=0)
        return target.get("max_bytes", math.inf) <= most

    def _far(self, drop: float, times: float = 1.0) -> bool:
        """Return whether a drop is more than ``times (3 max_drop + 1)`` points."""
        return self.goal.max_drop is not None and drop > times * (3 * self.goal.max_drop + 1)

    def _is_hopeless(self, missed: TriedFile, target: Target) -> bool:
        """Return whether a file lost so much that its way will not hold for a target, with somewhat more bytes."""
        easier = next((factor for times, factor in _EASIER.items() if self._far(missed.lost, times)), None)
        if easier is None:
            return False
        return _is_easier({**missed.target, "max_bytes": easier * missed.target.get("max_bytes", 0.0)}, target)


def next_trained(
    goal: Goal, files: Sequence[TriedFile], failed: Mapping[str, str], skipped: Collection[str], ranked: Ranked
) -> TrainedStep | None:
    """Return what to train next, None if nothing more pays.

    Args:
        goal: of the search.
        files: made so far, trained or not.
        failed: name of a step -> why it made none; a way that failed is not tried at smaller sizes.
        skipped: steps for which there was no time.
        ranked: the ways that have stages for a target, the likeliest to hold first.
    """
    seen = _Seen(goal, {each.name: each for each in files}, failed, skipped, ranked)
    timely = goal.max_ms is None or any(each.ms <= goal.max_ms for each in files if not each.way)
    if goal.aim == "bytes" and goal.max_drop is not None and timely:
        return _smaller(seen)
    if timely and goal.max_bytes is not None:
        return _best_of(seen, {"max_bytes": math.floor(_WITHIN * goal.max_bytes)})
    return next((step for target in _faster(seen) if (step := _best_of(seen, target))), None)


def _smaller(seen: _Seen) -> TrainedStep | None:
    """Return the next step towards few bytes: smaller while some way holds, then between."""
    goal, untrained = seen.goal, [each for each in seen.files.values() if not each.way]
    holding = [each.file_bytes for each in untrained if goal.holds(each)]
    high = min(holding, default=min(each.file_bytes for each in untrained))
    bound = high if goal.max_bytes is None else math.floor(_WITHIN * goal.max_bytes)
    size, low = round(min(_STEP * high, bound)), _SMALLEST
    fell = False
    while size > low and high > _NEAR * low:
        found = seen.examine({"max_bytes": size})
        if isinstance(found, TrainedStep):
            return found
        if found:
            high = min(size, high)
        else:
            low, fell = size, True
        size = round((high * low) ** 0.5) if fell else round(_STEP * high)
    return None


def _best_of(seen: _Seen, target: Target) -> TrainedStep | None:
    """Return the next way for one target: all are tried, unless one loses nothing."""
    steps = [TrainedStep(way, target) for way in seen.ranked(target)]
    made = [seen.files[each.name] for each in steps if each.name in seen.files]
    if any(seen.goal.holds(each) and each.drop <= 0 for each in made):
        return None
    return next((each for each in steps if each.name not in {*seen.files, *seen.failed, *seen.skipped}), None)


def _faster(seen: _Seen) -> Iterator[Target]:
    """Yield shares of the multiplications to remove, as far as they are known."""
    goal, untrained = seen.goal, [each for each in seen.files.values() if not each.way]
    if goal.max_ms is not None:
        least = min(each.ms for each in untrained)
        if least <= goal.max_ms:
            return
        share = min(1 - _TIMELY * goal.max_ms / least, 0.85)
        yield _share(share)
        if not any(each.way and each.ms <= goal.max_ms for each in seen.files.values()):
            yield _share(min(share + _MORE, 0.9))
        return
    for share in _SHARES:
        yield _share(share)
        made = [each for each in seen.files.values() if each.target == _share(share)]
        if not any(goal.holds(each) for each in made):
            return


def _share(share: float) -> Target:
    return {"macs": round(share, 3)}


def _is_easier(one: Target, other: Target) -> bool:
    """Return whether a target asks for no less than another leaves: as many bytes, or as few multiplications."""
    if "macs" in one or "macs" in other:
        return one.get("macs", 1.0) <= other.get("macs", 0.0)
    return one["max_bytes"] >= other["max_bytes"]
