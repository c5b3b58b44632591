"""A space: holes, each a value that a search chooses, by the path of the place where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.spec import Spec, explain, refused, refusing_at
from attar._src.recipe.recipe import HOLE_MARKS

#: Path of a hole -> the value that was chosen, for all holes of a space.
Point = Mapping[str, Any]


class Choose(Spec):
    """One of several values: ``{choose: [2, 3, 4]}``.

    Attributes:
        choose: the values, of any kind; they differ from each other.
        each: ``layer`` where the hole stands behind a glob of layers: every layer that matches gets a hole of its own.

    Example:
        >>> hole = Choose(choose=[2, 4, 8])
        >>> hole.ordered, hole.index(4)
        (True, 1)
    """

    choose: Annotated[tuple[Any, ...], Field(min_length=2)]
    each: Literal["layer"] | None = None

    @model_validator(mode="after")
    def _different(self) -> Self:
        with refusing_at("choose"):
            known = {_text(each) for each in self.choose}
        if len(known) < len(self.choose):
            raise refused(f"{list(self.choose)} has a value twice; give each once", "choose")
        return self

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers that grow, so that neighbours are alike."""
        numbers = [each for each in self.choose if type(each) in (int, float)]
        return len(numbers) == len(self.choose) and numbers == sorted(numbers)

    @property
    def values(self) -> Sequence[Any]:
        """All values."""
        return self.choose

    def index(self, value: Any) -> int:
        """Return the place of a value.

        Raises:
            SpecError: it is none of them.
        """
        known = [_text(each) for each in self.choose]
        if _text(value) not in known:
            raise SpecError(f"{value!r} is none of {list(self.choose)}")
        return known.index(_text(value))

    def check(self, value: Any) -> None:
        """Refuse a value that the hole cannot have, by a :class:`SpecError`."""
        self.index(value)


class Between(Spec):
    """A number between two, both included: ``{between: [0.3, 0.9]}``; a whole one if both ends are whole.

    Attributes:
        between: the least and the largest value.
        log: whether ratios count, not differences: as many draws between 0.001 and 0.01 as between 0.01 and 0.1.
        each: as in :class:`Choose`.

    Example:
        >>> Between(between=[1, 64], log=True).whole
        True
    """

    between: tuple[int | float, int | float]
    log: bool = False
    each: Literal["layer"] | None = None

    @model_validator(mode="after")
    def _grows(self) -> Self:
        low, high = self.between
        if not low < high:
            raise refused(f"{list(self.between)} should be the least value and a larger one", "between")
        if self.log and low <= 0:
            raise refused(f"ratios need values above 0, and the least is {low:g}; remove log, or start above 0", "log")
        return self

    @property
    def whole(self) -> bool:
        """Whether values are integers."""
        return all(type(each) is int for each in self.between)

    @property
    def values(self) -> Sequence[Any]:
        """All values, if they are whole; else both ends."""
        low, high = self.between
        return range(int(low), int(high) + 1) if self.whole else (low, high)

    def at(self, share: float) -> int | float:
        """Return the value at a share of the way from the least to the largest, 0 to 1; see :meth:`near`.

        Example:
            >>> Between(between=[0.01, 1.0], log=True).at(0.5)
            0.1
        """
        low, high = self.between
        return self.near(low * (high / low) ** share if self.log else low + share * (high - low))

    def near(self, value: float) -> int | float:
        """Return the value of the hole that is nearest: a whole one, or one of six digits, which people can read."""
        low, high = self.between
        return min(max(round(value) if self.whole else float(f"{value:.6g}"), low), high)

    def check(self, value: Any) -> None:
        """Refuse a value that the hole cannot have, by a :class:`SpecError`."""
        low, high = self.between
        if type(value) not in ((int,) if self.whole else (int, float)) or not low <= value <= high:
            raise SpecError(f"{value!r} is no {'whole ' if self.whole else ''}number between {low:g} and {high:g}")


Hole = Choose | Between


def hole_at(value: Any, path: str) -> Hole | None:
    """Return the hole that a value of a recipe is, None if it is something else.

    Raises:
        SpecError: it is a hole with keys or values that holes do not have.
    """
    if not isinstance(value, Mapping) or not any(isinstance(value.get(mark), list | tuple) for mark in HOLE_MARKS):
        return None
    kind: type[Hole] = Choose if "choose" in value else Between
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        raise SpecError(explain(error, where=path)) from error


@dataclass(frozen=True)
class Space:
    """Holes by path, in the order in which they stand.

    Example:
        >>> space = Space({"conv": Choose(choose=[2, 4, 8]), "fc": Between(between=[2, 8])})
        >>> space.count, space.lowest
        (21, {'conv': 2, 'fc': 2})
    """

    holes: Mapping[str, Hole]

    def __len__(self) -> int:
        return len(self.holes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.holes)

    @property
    def count(self) -> float:
        """The number of points; infinite where a hole has real numbers."""
        endless = any(isinstance(each, Between) and not each.whole for each in self.holes.values())
        return math.inf if endless else math.prod(len(each.values) for each in self.holes.values())

    @property
    def lowest(self) -> dict[str, Any]:
        """The point of the first choices and least values."""
        return {path: hole.values[0] for path, hole in self.holes.items()}

    def check(self, point: Point) -> None:
        """Check that a point has a value for every hole, and no other.

        Raises:
            SpecError: with the path and the fault.
        """
        for path in point:
            if path not in self.holes:
                raise UnknownName("hole", path, self.holes)
        for path, hole in self.holes.items():
            if path not in point:
                raise SpecError(f"{path}: the point has no value for this hole")
            try:
                hole.check(point[path])
            except SpecError as error:
                raise SpecError(f"{path}: {error}") from None

    def key(self, point: Point) -> str:
        """Return a text that two points share only if they are equal; one of some holes may be given too."""
        return _text({path: point[path] for path in self.holes if path in point})


def _text(value: Any) -> str:
    """Return a value as JSON, which tells 1 from True and 1.0.

    Raises:
        SpecError: JSON, in which points are stored, has no such value.
    """
    try:
        return json.dumps(value, sort_keys=True)
    except TypeError as error:
        raise SpecError(
            f"{value!r} is no value of a hole ({error}); give numbers, texts, lists and mappings by text, and name an "
            "object as file.py:name"
        ) from error
