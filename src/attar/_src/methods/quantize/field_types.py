"""Field types of quantization specs: bits, and which weights share a scale."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from attar._src.core.scheme import Granularity, PerBucket, PerGroup, PerTensor

#: Bits of a code on an affine grid.
GridBits = Annotated[int, Field(ge=2, le=8)]
#: Activations of a stage: bits, ``dynamic``, or None for floating point.
ActivationChoice = GridBits | Literal["dynamic"] | None
#: Bits of a code in a codebook.
CodeBits = Annotated[int, Field(ge=1, le=8)]

_SIZED = {"group": PerGroup, "bucket": PerBucket}


def _read(value: Any) -> Any:
    """Convert ``channel`` (None), ``tensor``, ``group:SIZE`` and ``bucket:SIZE``; return other values unchanged."""
    if not isinstance(value, str):
        return value
    kind, _, size = value.partition(":")
    if value == "channel":
        return None
    if value == "tensor":
        return PerTensor()
    if kind in _SIZED and size.isascii() and size.isdigit() and int(size):
        return _SIZED[kind](size=int(size))
    raise ValueError("use channel, tensor, group:SIZE or bucket:SIZE, as in group:64")


#: A granularity; None (``channel``) is one scale for each index of the weight's output axis.
GranularityChoice = Annotated[
    Granularity | None, BeforeValidator(_read, json_schema_input_type=str | Granularity | None)
]
