"""Parity: comparison of the outputs of a decoded file and of its module in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from attar._src.core.errors import ParityError
from attar._src.core.progress import track
from attar._src.measure.class_layout import usual_axis
from attar._src.model.interface import flatten_outputs
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs

#: Largest difference of floating-point models, relative to the largest output: orders of summation differ.
FLOAT_TOLERANCE = 1e-3
#: Quantized models can differ by one step at ties. At least this share of predictions should agree,
EQUAL_SHARE = 0.98
#: and the mean difference should be at most this share of the mean output.
MEAN_PART = 0.1
#: Two outputs this close, relative to the largest, are a tie: either counts as the prediction.
TIE = 1e-6
#: Largest number of inputs to compare: float64 is slow, and errors show on the first inputs.
EXAMPLES = 512
#: Of a large module fewer, those that take this number of multiplications and additions, and at least ENOUGH.
OPERATIONS = 1e10
ENOUGH = 16


@dataclass(frozen=True)
class Parity:
    """Differences between a decoded file and its module in PyTorch on real inputs.

    Attributes:
        examples: number of inputs.
        largest_difference, mean_difference: absolute difference of an output element.
        largest_output, mean_output: absolute output element of the module.
        equal_predictions: share of positions with the same (or a tied) largest element, along axis 1 of outputs with
            four or more axes (``(N, C, H, W)`` scores), along the last axis of others.
    """

    examples: int
    largest_difference: float
    largest_output: float
    mean_difference: float
    mean_output: float
    equal_predictions: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)

    def check(self, what: str, *, integers: bool) -> Parity:
        """Return self if the differences are within tolerance.

        Args:
            what: prefix of the error.
            integers: whether activations are quantized.

        Raises:
            ParityError: orders of summation (or, with ``integers``, ties of rounding) cannot explain the differences.
        """
        if not np.isfinite(self.largest_difference):
            fault = "an output is not finite"
        elif integers and self.mean_difference > MEAN_PART * self.mean_output + 1e-6:
            fault = (
                f"outputs differ by {self.mean_difference:.3g} on average where their mean is {self.mean_output:.3g}; "
                f"at most {MEAN_PART:g} of it is allowed"
            )
        elif integers and self.equal_predictions < (required := min(EQUAL_SHARE, 1 - 1 / max(self.examples, 1))):
            # Of fewer than 50 examples, 98 % would be all of them: one may be a tie.
            fault = (
                f"predictions agree on {self.equal_predictions:.2%} of {self.examples} examples, {required:.0%} are "
                "required"
            )
        elif not integers and self.largest_difference > FLOAT_TOLERANCE * max(self.largest_output, 1.0):
            fault = (
                f"outputs differ by up to {self.largest_difference:.3g} where the largest is "
                f"{self.largest_output:.3g}; at most {FLOAT_TOLERANCE:g} of it is allowed"
            )
        else:
            return self
        raise ParityError(f"{what}: {fault}")


def compare_outputs(
    session: Session, module: Callable[..., Any], batches: Iterable[BatchInputs], what: str = "parity"
) -> Parity:
    """Run a decoded file and a module on the same real inputs and compare their outputs.

    The module takes the tensors of a batch by position, in float64: integer kernels sum exactly, and float32 would add
    rounding of its own. ``what`` labels the progress bar.
    """
    names = [port.name for port in session.inputs]
    largest = biggest = total = outputs_total = 0.0
    elements = equal = positions = examples = 0
    with torch.no_grad():
        for batch in track(list(batches), what):
            expected = output_arrays(module(*(each.double() if each.is_floating_point() else each for each in batch)))
            outputs = session.run({name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)})
            examples += batch[0].shape[session.inputs[0].batch_axis]
            for (name, got), want in zip(outputs.items(), expected, strict=True):
                _same_shape(name, got, want)
                difference = np.abs(got.astype(np.float64) - want)
                # max() would ignore a NaN.
                largest = max(largest, float(difference.max(initial=0.0))) if np.isfinite(difference).all() else np.inf
                biggest = max(biggest, float(np.abs(want).max(initial=0.0)))
                total, elements = total + float(difference.sum()), elements + difference.size
                outputs_total += float(np.abs(want.astype(np.float64)).sum())
                if want.ndim:
                    same = _same_winner(got, want)
                    equal, positions = equal + int(np.sum(same)), positions + int(np.size(same))
    return Parity(
        examples=examples,
        largest_difference=largest,
        largest_output=biggest,
        mean_difference=total / max(elements, 1),
        mean_output=outputs_total / max(elements, 1),
        equal_predictions=equal / max(positions, 1),
    )


def _same_shape(name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
    if got.shape != want.shape:
        raise ParityError(
            f"output {name!r} has the shape {got.shape} in the file and {want.shape} in the module. If it packs "
            "sequences, let the longest of each batch fill it, or write pad_packed_sequence(..., "
            "total_length=x.shape[1]): a file returns as many steps as it is given"
        )


def compared(inputs: CalibrationInputs, graph: fx.GraphModule, *, cut: bool, share: int = 1) -> CalibrationInputs:
    """Return the first inputs, as many as a comparison is worth: EXAMPLES, or fewer where ``graph`` takes long.

    Example: an encoder with 3e9 operations for 128 tokens is compared on ``ENOUGH`` sequences, a ResNet-20 with 8e7 for
    an image on 121 images. ``cut``: whether the graph takes batches of any size;
    ``share``: divides the number where fewer are enough.
    """
    few = inputs.example(2) if cut else inputs.batches[0]
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_RECURRENT) as counter:
        graph(*few)
    one = counter.get_total_flops() / max(inputs.count(few), 1)
    worth = EXAMPLES if one == 0 else min(EXAMPLES, max(ENOUGH, int(OPERATIONS / one)))
    return inputs.first(max(2, worth // share), cut=cut)


def _recurrent_operations(x: Sequence[int], w_input: Sequence[int], w_state: Sequence[int], *_: Any, **__: Any) -> int:
    """Two for each element of a layer's weights at each step: ``x`` is ``(time, batch, features)``."""
    return 2 * x[0] * x[1] * (math.prod(w_input) + math.prod(w_state))


_RECURRENT = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_operations}


def _same_winner(got: NDArray[Any], want: NDArray[Any]) -> NDArray[np.bool_]:
    """Return at which positions the largest element of ``got`` is also the largest of ``want``, or tied."""
    axis = usual_axis(want.ndim)
    won = np.take_along_axis(want, got.argmax(axis, keepdims=True), axis)
    tolerance = TIE * float(np.abs(want).max(initial=0.0))
    return np.asarray(won >= want.max(axis, keepdims=True) - tolerance)


def output_arrays(output: Any) -> list[NDArray[Any]]:
    """Return the tensors of a module's output in order, as arrays."""
    return [tensor.detach().numpy() for tensor in flatten_outputs(output).values()]
