"""Bindings: how stored tensors become the initializers of a graph (``docs/format.md``, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import Binding, TensorRecord
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import Shape


class Whole(NamedTuple):
    """A binding to one whole tensor, whose codes a kernel can read directly, permuted."""

    tensor: str
    permute: tuple[int, ...] | None


class Bound(NamedTuple):
    """Element type (a key of ``DTYPES``; f32 for every dequantized tensor) and shape of a bound initializer."""

    dtype: str
    shape: Shape


class Piece(NamedTuple):
    """A part without the checks of a record: a file has hundreds of bindings, each asked for several times."""

    tensor: str
    start: int | None = None
    stop: int | None = None


def parts_of(binding: Binding) -> tuple[Piece, ...]:
    """Return the parts of a binding; without any, the whole tensor named like the initializer."""
    return tuple(Piece(part.tensor, part.start, part.stop) for part in binding.parts) or (Piece(binding.to),)


def whole(binding: Binding) -> Whole | None:
    """Return the tensor and permutation of a binding to one whole tensor, None for runs or several parts."""
    parts = parts_of(binding)
    if len(parts) > 1 or parts[0].start is not None:
        return None
    return Whole(parts[0].tensor, binding.permute)


def describe_binding(binding: Binding, records: Mapping[str, TensorRecord]) -> Bound:
    """Return type and shape of a bound initializer without decoding anything; ``records`` include aliases."""
    elements, dtypes = 0, set()
    for part in parts_of(binding):
        record = records.get(part.tensor)
        if record is None:
            raise ArtifactError(f"there is no tensor {part.tensor!r} in the file")
        start, stop = _run(part, record.elements)
        elements += stop - start
        dtypes.add(_dtype(record))
    if len(dtypes) != 1:
        raise ArtifactError(f"its parts have several types: {', '.join(sorted(dtypes))}")
    one = whole(binding)
    shape: Shape = (elements,) if one is None else records[one.tensor].shape
    if binding.permute is not None:
        if one is None or sorted(binding.permute) != list(range(len(shape))):
            raise ArtifactError(f"permute takes one whole tensor and a permutation of its axes, not {binding.permute}")
        shape = tuple(shape[axis] for axis in binding.permute)
    if binding.shape is not None:
        if math.prod(binding.shape) != elements:
            raise ArtifactError(f"{elements} elements cannot be reshaped to {binding.shape}")
        shape = binding.shape
    return Bound(dtypes.pop(), shape)


def resolve(binding: Binding, dense: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
    """Return the initializer: ``reshape(permute(concatenate(flat(part) for part in parts)), shape)``.

    The binding is one that :func:`describe_binding` accepts. ``dense`` returns the values of a tensor by name and is
    called once per tensor.
    """
    one = whole(binding)
    if one is not None:
        values = dense(one.tensor)
        values = values if one.permute is None else values.transpose(one.permute)
    else:
        parts = parts_of(binding)
        flat = {name: dense(name).reshape(-1) for name in dict.fromkeys(part.tensor for part in parts)}
        values = np.concatenate([flat[part.tensor][part.start : part.stop] for part in parts])
    return np.asarray(values.reshape(values.shape if binding.shape is None else binding.shape), order="C")


def _run(part: Piece, elements: int) -> tuple[int, int]:
    if part.start is None and part.stop is None:
        return 0, elements
    if part.start is None or part.stop is None or not part.start <= part.stop <= elements:
        run = f"{part.start}..{part.stop}"
        raise ArtifactError(f"the run {run} is not one of the {elements} elements of {part.tensor!r}")
    return part.start, part.stop


def _dtype(record: TensorRecord) -> str:
    value = record.value.values if record.value.kind == "sparse" else record.value
    return value.dtype if value.kind == "dense" and value.dtype not in ("f16", "bf16") else "f32"
