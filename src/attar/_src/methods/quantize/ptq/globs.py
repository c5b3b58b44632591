"""Tensors that globs select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from attar._src.core.errors import UnknownName
from attar._src.work.compressed_model import CompressedModel


def matching_tensors(glob: str, names: list[str], aliases: Mapping[str, str]) -> list[str]:
    """Return the names that match ``glob`` themselves or whose layer does, under any of their names.

    Raises:
        UnknownName: there are none.
    """
    known = {name: name for name in names} | {alias: name for alias, name in aliases.items() if name in names}
    matched = {
        of for each, of in known.items() if fnmatchcase(each, glob) or fnmatchcase(each.rpartition(".")[0], glob)
    }
    if not matched:
        raise UnknownName("layer", glob, {name.rpartition(".")[0] or name for name in names} | set(names))
    return [name for name in names if name in matched]


def bits_of_tensors(
    model: CompressedModel, layers: Mapping[str, int], overrides: Mapping[str, int], keep: Sequence[str]
) -> dict[str, int]:
    """Return the bits of each tensor that globs select, in the order of ``model.state()``.

    A tied weight answers to each of its names: ``aliases`` maps the others to the one in ``state``.

    Args:
        model: whose tensors they are.
        layers: glob of weights -> bits.
        overrides: glob of any tensors -> bits, instead of these; the last match wins.
        keep: globs of tensors that have none.
    """
    weights, aliases = model.weights(), model.aliases()
    known = [name for name, value in model.state().items() if value.is_floating_point()]
    bits = {
        name: width
        for glob, width in layers.items()
        for name in matching_tensors(glob, [n for n in known if n in weights], aliases)
    }
    for glob, width in overrides.items():
        matched = matching_tensors(glob, known, aliases)
        # The glob of a layer selects its weights; a bias or a table only if it matches no weight.
        bits |= dict.fromkeys([name for name in matched if name in weights] or matched, width)
    kept = {name for glob in keep for name in matching_tensors(glob, known, aliases)}
    return {name: bits[name] for name in known if name in bits and name not in kept}
