"""Bits of activations: those that are asked for where a product reads a value, 8 where none does."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from attar._src.core.errors import SpecError
from attar._src.model.sites import Site
from attar._src.work.value_globs import matching_values

#: Bits of a value that no product reads. The runtime keeps it in a byte in any case.
ADDED_BITS = 8


def check_own_bits(activations: int | str | None, overrides: Mapping[str, int]) -> None:
    """Raise a SpecError if some values have bits of their own, and values have no grids with bits."""
    if overrides and not isinstance(activations, int):
        words = "in floating point" if activations is None else activations
        raise SpecError(
            f"activation_overrides gives {', '.join(map(repr, overrides))} bits of their own, but activations are "
            f"{words}; add activations=8, or leave activation_overrides out"
        )


def own_value_bits(graphs: Mapping[str, fx.GraphModule], overrides: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return graph -> value -> the bits that ``overrides`` give it; the last match wins.

    Args:
        graphs: graphs by name.
        overrides: glob of layers, of which the inputs are meant, or of values -> bits.

    Raises:
        UnknownName: a glob matches nothing; the error lists the nearest layers.
    """
    found: dict[str, dict[str, int]] = {name: {} for name in graphs}
    for glob, bits in overrides.items():
        for name, values in matching_values(graphs, [glob]).items():
            found[name] |= dict.fromkeys(values, bits)
    return found


def site_bits(site: Site, bits: int, own: Mapping[str, int]) -> int:
    """Return the bits of a site: the most that one of its values has in ``own``, else ``bits`` where a product reads
    it, else at least ``ADDED_BITS``.

    Of ``relu(conv2(relu(conv1(x))) + x)`` at 4 bits, the inner relu has 4, which a convolution reads, and the output of
    conv2 has 8, which is added. x is both: a site with 4 bits, or, with a reading (``model.readings``), two of 8 and 4.
    """
    given = [own[value] for value in site.values if value in own]
    return max(given) if given else bits if site.multiplied else max(bits, ADDED_BITS)
