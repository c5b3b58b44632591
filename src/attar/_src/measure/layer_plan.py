"""The plan of a file on this machine: in which arithmetic its layers run, how many, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from attar._src.runtime.packed.single_row import measured_single_row_ratio, pays_for_single_rows
from attar._src.runtime.session import Layer, WeightForm

_KNOWN = {
    "integers": "what they read has a grid in the file",
    "dynamic integers": "they quantize what they read at run time, as the file says",
}


class PlanPart(NamedTuple):
    """Layers that run in the same arithmetic: ``plan`` of :class:`Layer`, their number, and why it was chosen."""

    plan: str
    layers: int
    why: str


def plan_of(layers: Sequence[Layer], weights: WeightForm) -> list[PlanPart]:
    """Return the parts of a plan, the largest first, of a session with this form of weights."""
    ratio = measured_single_row_ratio() if weights == "auto" else None
    known = {**_KNOWN, "packed weights": "on request"}
    if ratio is not None:
        said = f"a single row takes {ratio:.2f} times as long packed as in float32, measured here"
        known["packed weights" if pays_for_single_rows() else "float32"] = said
    return [PlanPart(plan, count, known.get(plan, "")) for plan, count in Counter(x.plan for x in layers).most_common()]
