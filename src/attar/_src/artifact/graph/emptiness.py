"""Operators whose kernels need elements: ONNX Runtime ends the process, hangs or returns noise on an empty axis.

GRU and LSTM abort on a batch of 0, ConvTranspose and InstanceNormalization write out of bounds on an axis of 0, Conv
never ends on 0 channels, Attention divides by 0 heads. Element-wise operators, products of matrices and data movement
return the empty array that they should.
"""

from __future__ import annotations

from attar._src.artifact.graph.guards import Inputs
from attar._src.core.errors import ArtifactError

_BATCHED = """
    Conv ConvTranspose InstanceNormalization GroupNormalization LRN LpNormalization MeanVarianceNormalization
    AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool GridSample Resize"""
#: Operator -> axes of its first input that may be empty: a batch of 0 images is no image, and that is all.
_MAY_BE_EMPTY: dict[str, tuple[int, ...]] = dict.fromkeys(_BATCHED.split(), (0,))
_MAY_BE_EMPTY |= dict.fromkeys(("Attention", "GRU", "LSTM", "RNN"), ())
#: Operators that need elements.
NEED_ELEMENTS = frozenset(_MAY_BE_EMPTY)
# Inputs that may be empty: settings that are left out, and the keys and values of no earlier tokens.
_SETTINGS = {"Resize": (1, 2, 3), "Attention": (4, 5)}


class EmptyAxis(ArtifactError):
    """An operator that needs elements would read none."""


def check_elements(name: str, inputs: Inputs) -> None:
    """Raise :class:`EmptyAxis` if operator ``name`` needs elements and an axis of an input is empty."""
    if name not in _MAY_BE_EMPTY:
        return
    for index, item in enumerate(inputs.items):
        if item is None or index in _SETTINGS.get(name, ()):
            continue
        allowed = _MAY_BE_EMPTY[name] if index == 0 else ()
        if any(size == 0 and axis not in allowed for axis, size in enumerate(item.shape)):
            raise EmptyAxis(f"{name} cannot compute with an empty axis; its input {index} has the shape {item.shape}")
