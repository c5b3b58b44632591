"""What ``attar.prune`` is asked for: options of channels or of layers, which exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.methods.prune.channels.pruning import ChannelPruning
from attar._src.methods.prune.layers.pruning import LayerPruning

#: What is removed as a whole, and the options that no other unit has.
UNITS = {"channel": ("channels", "scope", "round_to", "least"), "layer": ("layers",)}


def asked_pruning(
    unit: str | None, score: str | None, exclude: Sequence[str], **options: Any
) -> ChannelPruning | LayerPruning:
    """Return what to remove.

    Args:
        unit: a key of ``UNITS``; None for the one whose options are given.
        score: None for the unit's default.
        exclude: globs of layers.
        options: those of all units, ``macs`` and ``max_ms``; None if not given. With ``max_ms`` the amount of the
            result says nothing.

    Raises:
        SpecError: there is no such unit, or an option is of another one, or says how much beside ``max_ms``.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "max_ms" in given:
        if amounts := [name for name in ("channels", "layers", "macs") if name in given]:
            raise SpecError(f"max_ms tells how much is removed; leave out {amounts[0]}")
        if not given.pop("max_ms") > 0:
            raise SpecError("max_ms: give a time above 0")
        given["macs"] = 0.5
    if unit is None:
        unit = "layer" if "layers" in given else "channel"
    if unit not in UNITS:
        raise SpecError(f"unit={unit!r}: there is {' and '.join(UNITS)}")
    for other, own in UNITS.items():
        if foreign := [name for name in own if other != unit and name in given]:
            raise SpecError(f"{foreign[0]} is of unit={other!r}, and unit={unit!r} is removed; give one of the two")
    if score is not None:
        given["score"] = score
    kind: type[ChannelPruning | LayerPruning] = ChannelPruning if unit == "channel" else LayerPruning
    asked: ChannelPruning | LayerPruning = build_spec(kind, where="prune", exclude=tuple(exclude), **given)
    return asked
