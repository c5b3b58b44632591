"""Holes in the tree of a recipe: found, given to each layer, checked, and filled.

recipe with holes --> space --> point --> recipe without
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attar._src.core.errors import SpecError, UnknownName
from attar._src.recipe.recipe import SEARCH_KEY, unfilled_hole
from attar._src.report.wording import short
from attar._src.search.space import Choose, Hole, Point, Space, hole_at

#: Layers in order -> all names by which globs match them.
LayerNames = Mapping[str, Sequence[str]]

#: The root of a recipe's paths in messages.
_ROOT = "recipe"
#: Values of a line, and characters of one.
_SHOWN, _VALUE = 8, 40


def find_holes(tree: Mapping[str, Any]) -> Space:
    """Return the holes of a recipe in order; those inside a choice too, which count when it is chosen.

    Raises:
        SpecError: a hole is malformed, or two places have one path.

    Example:
        >>> find_holes({"seeds": [0], "stages": [{"bits": {"choose": [2, 4]}}]}).lowest
        {'stages.0.bits': 2}
    """
    holes: dict[str, Hole] = {}
    for path, hole in _walk(tree, ""):
        if path in holes:
            raise SpecError(f"{_ROOT}.{path}: two places have this path; rename a key that has a dot")
        holes[path] = hole
    return Space(holes)


def _walk(value: Any, path: str) -> Iterator[tuple[str, Hole]]:
    hole = hole_at(value, _below(_ROOT, path))
    if hole is not None:
        yield path, hole
        for index, each in enumerate(hole.choose if isinstance(hole, Choose) else ()):
            yield from _walk(each, f"{path}.choose.{index}")
        return
    for key, item in _items(value):
        yield from _walk(item, _below(path, key))


def fill_holes(tree: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return the recipe with the values of a point in place of its holes.

    Raises:
        SpecError: the point lacks a value, or has one that the hole cannot have.

    Example:
        >>> fill_holes({"stages": [{"bits": {"choose": [2, 4]}}]}, {"stages.0.bits": 4})
        {'stages': [{'bits': 4}]}
    """
    find_holes(tree).check(point)
    return dict(_filled(tree, point, ""))


def _filled(value: Any, point: Point, path: str) -> Any:
    hole = hole_at(value, path)
    if isinstance(hole, Choose):
        index = hole.index(point[path])
        return _filled(hole.choose[index], point, f"{path}.choose.{index}")
    if hole is not None:
        return point[path]
    if isinstance(value, Mapping):
        return {key: _filled(item, point, _below(path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, point, _below(path, key)) for key, item in enumerate(value)]
    return value


def counted_values(tree: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return the values of a point that count: all but those of holes inside choices that were not taken.

    Example:
        >>> tree = {"stages": {"choose": [[], [{"bits": {"choose": [2, 4]}}]]}}
        >>> counted_values(tree, {"stages": [], "stages.choose.1.0.bits": 4})
        {'stages': []}
    """
    return dict(_counted(tree, point, ""))


def _counted(value: Any, point: Point, path: str) -> Iterator[tuple[str, Any]]:
    hole = hole_at(value, path)
    if hole is None:
        for key, item in _items(value):
            yield from _counted(item, point, _below(path, key))
        return
    yield path, point[path]
    if isinstance(hole, Choose):
        index = hole.index(point[path])
        yield from _counted(hole.choose[index], point, f"{path}.choose.{index}")


def values_in_words(values: Mapping[str, Any]) -> str:
    """Return values in holes as a line, each by the shortest end of its path that tells it from the others.

    Example:
        >>> values_in_words({"models.net.stages.0.sparsity": 0.5, "models.net.stages.1.bits": 3, "seeds.0": 1})
        'sparsity=0.5, bits=3, seeds.0=1'
    """
    told = [f"{name}={_in_words(value)}" for name, value in zip(_short_paths([*values]), values.values(), strict=True)]
    more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    return ", ".join([*told[:_SHOWN], *more])


def _short_paths(paths: Sequence[str]) -> list[str]:
    """Return the ends of paths: the fewest parts, no index first, that no other path ends in."""
    found = []
    for path in paths:
        parts = path.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts))) if not parts[start].isdigit()]
        others = [each for each in paths if each != path]
        found.append(next((end for end in ends if not any(f".{each}".endswith(f".{end}") for each in others)), path))
    return found


def _in_words(value: Any) -> str:
    return short(value if isinstance(value, str) else json.dumps(value), _VALUE)


def is_search(tree: Mapping[str, Any]) -> bool:
    """Return whether the tree of a recipe has a search.

    Raises:
        SpecError: it has holes and no search.
    """
    if SEARCH_KEY in tree:
        return True
    if holes := [*find_holes(tree)]:
        raise unfilled_hole(holes[0])
    return False


def has_layer_holes(tree: Mapping[str, Any]) -> bool:
    """Return whether a hole stands for one of each layer, so that the layers of a model must be known."""
    return any(hole.each is not None for hole in find_holes(tree).holes.values())


def with_layer_holes(tree: Mapping[str, Any], layers: Callable[[str, int], LayerNames]) -> dict[str, Any]:
    """Return the recipe with a hole for each layer in place of ``GLOB: {..., each: layer}``.

    A layer that a later glob of the same mapping matches has its value from there, and no hole.

    Args:
        tree: the recipe.
        layers: name of a model and place of a stage -> the layers that the stage may name, in order, each with all
            names by which a glob of the stage matches it.

    Raises:
        SpecError: a hole for each layer is no value of a glob in a stage of a model, or no layer matches.

    Example:
        >>> stage = {"overrides": {"*": {"choose": [2, 4], "each": "layer"}, "fc": 8}}
        >>> tree, names = {"models": {"net": {"stages": [stage]}}}, {"conv": ["conv"], "fc": ["fc"]}
        >>> done = with_layer_holes(tree, lambda *_: names)
        >>> done["models"]["net"]["stages"][0]["overrides"]
        {'conv': {'choose': [2, 4]}, 'fc': 8}
    """
    return dict(_spread(tree, "", layers))


def _spread(value: Any, path: str, layers: Callable[[str, int], LayerNames]) -> Any:
    hole = hole_at(value, path)
    if hole is not None and hole.each is not None:
        raise SpecError(
            f"{_below(_ROOT, path)}: each: layer stands behind a glob of layers, as in overrides: {{'*': {{choose: [2, "
            "4], each: layer}}; remove each here"
        )
    if isinstance(value, list | tuple):
        return [_spread(item, _below(path, key), layers) for key, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for place, (key, item) in enumerate(value.items()):
        inner = hole_at(item, _below(path, key))
        if inner is None or inner.each is None:
            found.pop(key, None)
            found[key] = _spread(item, _below(path, key), layers)
            continue
        later = [str(other) for other in [*value][place + 1 :]]
        for name, every in _matching(str(key), path, layers).items():
            if not any(_matches(every, other) for other in later):
                # At the end: a glob before this one would count for it otherwise.
                found.pop(name, None)
                found[name] = {mark: each for mark, each in item.items() if mark != "each"}
    return found


def _matching(glob: str, path: str, layers: Callable[[str, int], LayerNames]) -> LayerNames:
    parts = path.split(".")
    if len(parts) < 4 or parts[0] != "models" or parts[2] != "stages" or not parts[3].isdigit():
        raise SpecError(f"{_below(_ROOT, path)}: each: layer is for stages of a model; remove it here")
    names = layers(parts[1], int(parts[3]))
    found = {name: every for name, every in names.items() if _matches(every, glob)}
    if not found:
        raise SpecError(f"{_below(_ROOT, path)}: {UnknownName(f'layer of {parts[1]}', glob, names)}")
    return found


def _matches(names: Iterable[str], glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in names)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return [*value.items()]
    return [*enumerate(value)] if isinstance(value, list | tuple) else []


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if path and str(key) else path or str(key)
