"""What is asked of a file instead of bits and activations, and what cannot be asked together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.methods.allocate.target import BitTarget


def bit_target(
    size: float | None,
    max_bytes: int | None,
    max_drop: float | None,
    sensitivity: str | Path | None,
    validation: Any = None,
    alternatives: Sequence[str] = (),
    *,
    bits: int | None = None,
) -> BitTarget | None:
    """Return the target for bits, None without one.

    Raises:
        SpecError: there are several, or an option belongs to a target that is not given, or ``bits`` are beside one.
    """
    if validation is not None and max_drop is None:
        raise SpecError("validation= is for max_drop=; add it, or leave validation= out")
    if size is None and max_bytes is None and max_drop is None:
        if sensitivity is not None:
            raise SpecError("sensitivity= is for a target; add size=, max_bytes= or max_drop=")
        if alternatives:
            raise SpecError("alternatives= are for a target; add size=, max_bytes= or max_drop=, or give scheme=")
        return None
    if bits is not None:
        given = "size=" if size is not None else "max_bytes=" if max_bytes is not None else "max_drop="
        raise SpecError(
            f"bits={bits} stand beside {given}, which chooses the bits of each weight: leave bits= out, or fix those "
            f"of single layers by overrides=, as in {{'head.weight': {bits}}}"
        )
    fields = {"size": size, "max_bytes": max_bytes, "max_drop": max_drop, "alternatives": tuple(alternatives)}
    table = None if sensitivity is None else str(sensitivity)
    target: BitTarget = build_spec(BitTarget, where="quantize", **fields, sensitivity=table)
    return target


def check_goals(
    activations: Any, max_ms: float | None, best: bool, minutes: float | None, *, target: bool, alone: bool
) -> None:
    """Check goals that exclude each other.

    Args:
        activations, max_ms, best, minutes: as in ``attar.quantize``.
        target: whether bits have a target.
        alone: whether they have none, and there is no reconstruction.

    Raises:
        SpecError: two of them cannot be met together.
    """
    timed = activations == "auto" or max_ms is not None
    if target and timed:
        raise SpecError(
            "activations='auto' and max_ms= time files of one size; choose 8, 'dynamic' or None beside a target"
        )
    if max_ms is not None and (activations not in (None, "auto") or not max_ms > 0):
        raise SpecError(
            f"max_ms={max_ms:g} with activations={activations!r}: give a time above 0, which chooses the activations"
        )
    if best and not (minutes and minutes > 0):
        raise SpecError(f"best tries options for some minutes; add minutes=5 (got {minutes})")
    if minutes is not None and not best:
        raise SpecError("minutes= is the time for best=True; for reconstruct write reconstruct={'minutes': 5}")
    if best and (timed or not alone):
        raise SpecError(
            "best tries reconstruct by itself and compares files of the same bits and activations; leave out "
            "reconstruct=, size=, max_bytes=, max_drop=, max_ms= and activations='auto', or best"
        )
