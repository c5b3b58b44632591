"""Check the values that determine an output's size, before shape inference computes with them.

The output size of ``ConstantOfShape``, ``Expand``, ``Range`` and similar operators is a *value* in the graph: a few
bytes can ask for terabytes, or make a kernel divide by zero. Each such operator has a rule here that returns the number
of elements of its output, or raises if the values are invalid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from attar._src.artifact.graph.operators import MAX_INT, OPERATORS
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import Shape

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}


class Sized(NamedTuple):
    """Element type (ONNX number), shape at the example sizes and, if known, values of one value of a graph.

    Values are known if they are few and follow from constants and sizes alone. They are ``fixed`` if they are the same
    at every size of the graph's inputs. A value is ``constant`` if it follows from initializers and sizes, known or not.
    """

    type: int
    shape: Shape
    values: NDArray[Any] | None = None
    fixed: bool = False
    constant: bool = False


class Inputs(NamedTuple):
    """A node's attributes and inputs; None for an absent input."""

    attributes: Mapping[str, Any]
    items: Sequence[Sized | None]

    def numbers(self, index: int) -> list[Any]:
        """Return the values of an input as Python numbers, which do not overflow; empty if unknown."""
        item = self.items[index] if index < len(self.items) else None
        return [] if item is None or item.values is None else item.values.reshape(-1).tolist()

    def elements(self, index: int) -> int:
        """Return :func:`elements` of an input's shape."""
        item = self.items[index]
        return elements(() if item is None else item.shape)


def elements(shape: Shape) -> int:
    """Return the number of elements of a shape, axes of size 0 counted as 1 so that none is free: (0, 4) counts 4."""
    return math.prod(max(size, 1) for size in shape)


def check_values(name: str, inputs: Inputs, limits: Limits) -> dict[int, NDArray[Any]]:
    """Check integer divisors, and the values that determine the size of the output of operator ``name``.

    Returns the values by index of their input, for shape inference; raises if they are unknown, invalid, or make an
    output above the limit.
    """
    first = next(iter(inputs.items), None)
    if first is not None and first.type not in _FLOATS:
        # An integer division by zero in a kernel kills the process (SIGFPE).
        if name in ("Div", "Mod"):
            divisor = inputs.items[1]
            if divisor is None or not divisor.fixed or min(inputs.numbers(1), default=1) <= 0:
                raise ArtifactError("integers may be divided by positive constants only")
        if name == "ReduceMean":
            raise ArtifactError("a mean of integers may divide by zero; cast to floating point first")
    found: dict[int, NDArray[Any]] = {}
    indices, rule = _RULES.get(name, ((), _modest))
    for index, item in enumerate(inputs.items):
        if index in indices and item is not None:
            if item.values is None:
                raise ArtifactError(f"input {index} determines the output's size and depends on data")
            # Bounds of Slice keep their meaning when clipped to 32 bits.
            found[index] = np.clip(item.values, -MAX_INT, MAX_INT) if name == "Slice" else item.values
    try:
        size = rule(inputs) if indices else 0
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise ArtifactError(f"the values that determine the output's size are invalid: {error}") from error
    if size > limits.value_elements:
        raise ArtifactError(f"it makes {size} elements, more than the limit of {limits.value_elements}")
    return found


def _sizes(sizes: list[Any]) -> tuple[Any, ...]:
    if any(size < 0 for size in sizes):
        raise ValueError(f"negative size in {sizes[:16]}")
    return tuple(sizes)


def _modest(inputs: Inputs) -> int:
    numbers = [number for index in range(1, len(inputs.items)) for number in inputs.numbers(index)]
    if any(abs(number) > MAX_INT for number in numbers):
        raise ValueError(f"a number exceeds {MAX_INT}")
    return 0


def _constant(inputs: Inputs) -> int:
    fill = inputs.attributes.get("value")
    if fill is not None and math.prod(fill.dims) != 1:
        raise ValueError("the fill value is not a single number")
    return elements(_sizes(inputs.numbers(0)))


def _one_hot(inputs: Inputs) -> int:
    (depth,) = _sizes(inputs.numbers(1))
    return int(math.ceil(depth) * inputs.elements(0))


def _pad(inputs: Inputs) -> int:
    return max((abs(int(number)) for number in inputs.numbers(1) + inputs.numbers(3)), default=0)


def _range(inputs: Inputs) -> int:
    (start,), (limit,), (delta,) = (inputs.numbers(index) for index in range(3))
    return int(max(math.ceil((limit - start) / delta), 0))


def _reshape(inputs: Inputs) -> int:
    sizes = inputs.numbers(1)
    if sizes.count(-1) > 1 or (-1 in sizes and 0 in sizes and inputs.attributes.get("allowzero", 0)):
        raise ValueError(f"{sizes[:16]} is not a shape")
    return elements(_sizes([size for size in sizes if size != -1]))


def _resize(inputs: Inputs) -> int:
    scales, sizes = inputs.numbers(2), inputs.numbers(3)
    if not all(scale > 0 for scale in scales + sizes):
        raise ValueError("a scale or size is not positive")
    return math.ceil(math.prod(scales)) * inputs.elements(0) if scales else int(math.prod(sizes))


def _slice(inputs: Inputs) -> int:
    if any(step == 0 or abs(step) > MAX_INT for step in inputs.numbers(4)):
        raise ValueError(f"a step is 0 or exceeds {MAX_INT}")
    return 0


#: Operator -> inputs whose values shape inference reads, and the rule for them.
_RULES: dict[str, tuple[tuple[int, ...], Callable[[Inputs], int]]] = {
    "ConstantOfShape": ((0,), _constant),
    "Expand": ((1,), lambda inputs: elements(_sizes(inputs.numbers(1)))),
    "OneHot": ((1,), _one_hot),
    "Pad": ((1, 3), _pad),
    "Range": ((0, 1, 2), _range),
    "Reshape": ((1,), _reshape),
    "Resize": ((2, 3), _resize),
    "Slice": ((1, 2, 3, 4), _slice),
    "Split": ((1,), lambda inputs: int(sum(_sizes(inputs.numbers(1))))),
    "Tile": ((1,), lambda inputs: elements(_sizes(inputs.numbers(1))) * inputs.elements(0)),
}
_RULES |= dict.fromkeys(("Squeeze", "TopK", "Unsqueeze"), ((1,), _modest))
_RULES |= {name: ((1,), _modest) for name in OPERATORS if name.startswith("Reduce")}
