"""Check the values that determine an output's size, before shape inference computes with them.

The output size of ``ConstantOfShape``, ``Expand``, ``Range`` and similar operators is a *value* in the graph: a few
bytes can ask for terabytes, or make a kernel divide by zero. Each such operator has a rule here that returns the number
of elements of its output, or raises if the values are invalid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from attar._src.artifact.graph.operators import MAX_INT, OPERATORS
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import Shape

#: Operator -> inputs whose values shape inference reads.
VALUE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
} | {name: (1,) for name in OPERATORS if name.startswith("Reduce")}

_FLOATS = {"tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"}


class Inputs(NamedTuple):
    """A node's attributes and inputs; None for an absent input or an unknown value.

    Attributes:
        attributes: the node's attributes by name.
        types: ONNX names of the element types.
        shapes: shapes at the example sizes.
        values: the values known before running the graph.
        fixed: whether the values are the same at every size of the graph's inputs.
    """

    attributes: Mapping[str, Any]
    types: Sequence[str | None]
    shapes: Sequence[Shape | None]
    values: Sequence[NDArray[Any] | None]
    fixed: Sequence[bool]

    def numbers(self, index: int) -> list[Any]:
        """Return the values of an input as Python numbers, which do not overflow; empty if unknown."""
        value = self.values[index] if index < len(self.values) else None
        return [] if value is None else value.reshape(-1).tolist()

    def elements(self, index: int) -> int:
        """Return :func:`elements` of an input's shape."""
        return elements(self.shapes[index] or ())


def elements(shape: Shape) -> int:
    """Return the number of elements of a shape, axes of size 0 counted as 1 so that none is free: (0, 4) counts 4."""
    return math.prod(max(size, 1) for size in shape)


def check_values(name: str, inputs: Inputs, limits: Limits) -> None:
    """Check integer divisors, and the values that determine the size of the output of operator ``name``.

    Raises:
        ArtifactError: the values are unknown, invalid, or make an output above the limit.
    """
    if inputs.types and inputs.types[0] not in _FLOATS:
        # An integer division by zero in a kernel kills the process (SIGFPE).
        if name in ("Div", "Mod") and not (inputs.fixed[1] and min(inputs.numbers(1), default=1) > 0):
            raise ArtifactError("integers may be divided by positive constants only")
        if name == "ReduceMean":
            raise ArtifactError("a mean of integers may divide by zero; cast to floating point first")
    if name not in VALUE_INPUTS:
        return
    for index in VALUE_INPUTS[name]:
        if index < len(inputs.types) and inputs.types[index] is not None and inputs.values[index] is None:
            raise ArtifactError(f"input {index} determines the output's size and depends on data")
    try:
        size = _RULES.get(name, _modest)(inputs)
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise ArtifactError(f"the values that determine the output's size are invalid: {error}") from error
    if size > limits.value_elements:
        raise ArtifactError(f"it makes {size} elements, more than the limit of {limits.value_elements}")


def _sizes(sizes: list[Any]) -> tuple[Any, ...]:
    if any(size < 0 for size in sizes):
        raise ValueError(f"negative size in {sizes[:16]}")
    return tuple(sizes)


def _modest(inputs: Inputs) -> int:
    numbers = [number for index in range(1, len(inputs.values)) for number in inputs.numbers(index)]
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
    count: int = math.ceil(depth) * inputs.elements(0)
    return count


def _pad(inputs: Inputs) -> int:
    return max((abs(int(number)) for number in inputs.numbers(1) + inputs.numbers(3)), default=0)


def _range(inputs: Inputs) -> int:
    (start,), (limit,), (delta,) = (inputs.numbers(index) for index in range(3))
    count: int = max(math.ceil((limit - start) / delta), 0)
    return count


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


_RULES: dict[str, Callable[[Inputs], int]] = {
    "ConstantOfShape": _constant,
    "Expand": lambda inputs: elements(_sizes(inputs.numbers(1))),
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": lambda inputs: int(sum(_sizes(inputs.numbers(1)))),
    "Tile": lambda inputs: elements(_sizes(inputs.numbers(1))) * inputs.elements(0),
}
