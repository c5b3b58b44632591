"""About how long operators take: multiply-adds, or elements read and written where there are none.

Windows of 2^31 x 2^31 and products of constants cost a file nothing and its reader hours; ONNX Runtime computes what
depends on constants alone as it opens a file, before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from attar._src.artifact.graph.guards import Inputs, Sized, elements
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import Shape

_SMALL_WINDOW = 64  # a short input may be padded to as many
_BLAS = 16  # multiply-adds of a product of matrices in the time of one in a plain loop


def multiply_adds(name: str, inputs: Inputs, made: Sequence[Sized]) -> int:
    """Return the multiply-adds of an operator, at least one for each element that it reads or writes."""
    out = elements(made[0].shape) if made else 0
    touched = sum(elements(item.shape) for item in (*inputs.items, *made) if item is not None)
    return max(touched, _RULES[name](inputs, out)) if name in _RULES else touched


def check_window(name: str, inputs: Inputs) -> None:
    """Raise if the window of a pooling operator reaches far beyond its input: padding cannot make it useful."""
    windows = inputs.attributes.get("kernel_shape")
    if name not in _POOLS or windows is None:
        return
    for size, window in zip(_shape(inputs, 0)[2:], windows, strict=False):
        if window > max(2 * size, _SMALL_WINDOW):
            raise ArtifactError(f"its window {list(windows)} is larger than its input {list(_shape(inputs, 0))}")


def _shape(inputs: Inputs, index: int) -> Shape:
    item = inputs.items[index] if index < len(inputs.items) else None
    return () if item is None else item.shape


def _each_output(inputs: Inputs, out: int) -> int:
    return out * elements(_shape(inputs, 1)[1:])


def _each_input(inputs: Inputs, out: int) -> int:
    return inputs.elements(0) * elements(_shape(inputs, 1)[1:])


def _window(inputs: Inputs, out: int) -> int:
    return out * math.prod(inputs.attributes.get("kernel_shape", ()))


def _matrices(inputs: Inputs, out: int) -> int:
    first = _shape(inputs, 0)
    inner = first[0 if inputs.attributes.get("transA", 0) else -1] if first else 1
    return out * max(inner, 1) // _BLAS


def _recurrent(inputs: Inputs, out: int) -> int:
    steps = elements(_shape(inputs, 0)[:2])
    return steps * (elements(_shape(inputs, 1)) + elements(_shape(inputs, 2)))


def _attention(inputs: Inputs, out: int) -> int:
    length = sum(_shape(inputs, index)[-2] for index in (1, 4) if len(_shape(inputs, index)) > 2)
    return 2 * inputs.elements(0) * length // _BLAS


def _einsum(inputs: Inputs, out: int) -> int:
    """Return the product of the sizes of all letters: the most that a pairwise evaluation holds or multiplies."""
    terms = inputs.attributes["equation"].decode().replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    broadcast = 1
    for term, item in zip(terms, inputs.items, strict=False):
        shape = () if item is None else item.shape
        letters = term.replace("...", "")
        head = len(term.partition("...")[0])
        rest = len(shape) - len(letters)
        if "..." in term and rest > 0:
            broadcast = max(broadcast, elements(shape[head : head + rest]))
            shape = shape[:head] + shape[head + rest :]
        for letter, size in zip(letters, shape, strict=False):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return broadcast * math.prod(sizes.values())


def _normalized_channels(inputs: Inputs, out: int) -> int:
    return out * int(inputs.attributes.get("size", 1))


_POOLS = ("AveragePool", "LpPool", "MaxPool")
_RULES: dict[str, Callable[[Inputs, int], int]] = {
    "Attention": _attention,
    "Conv": _each_output,
    "ConvTranspose": _each_input,
    "Einsum": _einsum,
    "Gemm": _matrices,
    "LRN": _normalized_channels,
    "MatMul": _matrices,
}
_RULES |= dict.fromkeys(_POOLS, _window)
_RULES |= dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent)
