"""Field types of quantization specs: bits, and which weights share a scale."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from attar._src.core.scheme import Granularity, PerBucket, PerGroup, PerTensor

#: Bits of a code on an affine grid.
GridBits = Annotated[int, Field(ge=2, le=8)]
#: Bits of a code in a codebook.
CodeBits = Annotated[int, Field(ge=1, le=8)]


def _read_activations(value: Any) -> Any:
    """Return the value if it is a choice: one sentence says more than the errors of three types."""
    if value is None or value == "dynamic" or (type(value) is int and 2 <= value <= 8):
        return value
    if value == "auto":
        raise ValueError(
            "the file of a stage should not depend on the speed of a machine: attar quantize --activations auto "
            "measures once and says which of 8, dynamic and None to write"
        )
    raise ValueError("use the bits, 2 to 8, or dynamic, or None for floating point")


#: Activations of a stage: bits of static grids, ``dynamic``, or None for floating point.
ActivationChoice = Annotated[
    GridBits | Literal["dynamic"] | None,
    BeforeValidator(_read_activations, json_schema_input_type=GridBits | Literal["dynamic"] | None),
]

_SIZED = {"group": PerGroup, "bucket": PerBucket}


def read_granularity(value: Any) -> Any:
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
    Granularity | None, BeforeValidator(read_granularity, json_schema_input_type=str | Granularity | None)
]
