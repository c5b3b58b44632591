"""Evaluate the small integer arithmetic that shapes in a graph are computed from.

Exporters write the size of a ``Reshape`` or ``Expand`` as a chain of ``Shape``, ``Slice``, ``Mul`` and ``Concat``. With
every input axis at its example size these chains are constants. This module folds them, for tensors of at most 64
elements, so that every value of a graph has a size before anything runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.core.scheme import Shape

SMALL_VALUE = 64
#: Element types that are evaluated, keys of ``core.tensors.DTYPES``.
ONNX_DTYPES = ("i64", "i32", "bool", "f32")

Array = NDArray[Any]


class Call(NamedTuple):
    """An operator applied to known inputs: attributes, inputs and output shape."""

    attributes: Mapping[str, Any]
    inputs: Sequence[Array]
    shape: Shape


def evaluate_node(name: str, call: Call, dtype: np.dtype[Any]) -> Array | None:
    """Return the output of an operator on known inputs, or None if it cannot be evaluated here."""
    rule = _RULES.get(name)
    if rule is None:
        return None
    with np.errstate(all="ignore"):
        try:
            found = np.asarray(rule(call)).astype(dtype)
        except (ValueError, IndexError, TypeError, OverflowError):
            return None  # the node would fail at run time; values that depend on it have no size
    return found if found.shape == call.shape else None


def _map(function: Callable[..., Any]) -> Callable[[Call], Any]:
    return lambda call: function(*call.inputs)


def _fold(function: Callable[[Array, Array], Any]) -> Callable[[Call], Any]:
    return lambda call: functools.reduce(function, call.inputs)


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        axes = call.inputs[1].tolist() if len(call.inputs) > 1 else call.attributes.get("axes")
        if not axes and call.attributes.get("noop_with_empty_axes", 0):
            return call.inputs[0]
        keep = bool(call.attributes.get("keepdims", 1))
        return function(call.inputs[0], axis=tuple(axes) if axes else None, keepdims=keep)

    return rule


def _divide(call: Call) -> Any:
    numerator, divisor = call.inputs
    if numerator.dtype.kind == "f":
        return numerator / divisor
    return np.sign(numerator) * (np.abs(numerator) // divisor)  # ONNX rounds towards zero; the divisor is positive


def _slice(call: Call) -> Any:
    data, starts, ends = call.inputs[:3]
    axes = call.inputs[3] if len(call.inputs) > 3 else np.arange(starts.size)
    steps = call.inputs[4] if len(call.inputs) > 4 else np.ones_like(starts)
    for axis, start, stop, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        size = data.shape[axis]
        # With a negative step start is an element and stop may be -1 (before the first); otherwise both may be size.
        first, last = (0, size - 1) if step < 0 else (0, size)
        start = min(max(start + size if start < 0 else start, first), last)
        stop = min(max(stop + size if stop < 0 else stop, -1 if step < 0 else first), last)
        data = np.take(data, np.arange(start, stop, step), axis)
    return data


_RULES: dict[str, Callable[[Call], Any]] = {
    "Abs": _map(np.abs),
    "Add": _map(np.add),
    "And": _map(np.logical_and),
    "Cast": _map(np.asarray),
    "CastLike": lambda call: call.inputs[0],
    "Ceil": _map(np.ceil),
    "Concat": lambda call: np.concatenate(call.inputs, call.attributes["axis"]),
    "Div": _divide,
    "Equal": _map(np.equal),
    "Expand": lambda call: np.broadcast_to(call.inputs[0], call.shape),
    "Floor": _map(np.floor),
    "Gather": lambda call: np.take(call.inputs[0], call.inputs[1], call.attributes.get("axis", 0)),
    "Greater": _map(np.greater),
    "GreaterOrEqual": _map(np.greater_equal),
    "Identity": _map(np.asarray),
    "Less": _map(np.less),
    "LessOrEqual": _map(np.less_equal),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mod": lambda call: (np.fmod if call.attributes.get("fmod", 0) else np.mod)(*call.inputs),
    "Mul": _map(np.multiply),
    "Neg": _map(np.negative),
    "Not": _map(np.logical_not),
    "Or": _map(np.logical_or),
    "Range": lambda call: call.inputs[0] + np.arange(call.shape[0]) * call.inputs[2],
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Round": _map(np.rint),
    "Slice": _slice,
    "Sub": _map(np.subtract),
    "Sum": _fold(np.add),
    "Where": _map(np.where),
}
_RULES |= dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), lambda call: call.inputs[0].reshape(call.shape))
