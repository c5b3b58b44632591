"""Parity: comparison of the outputs of a decoded file and of its module in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from attar._src.core.errors import ParityError
from attar._src.core.progress import track
from attar._src.measure.difference import INTEGERS, SCORES, Difference, kind_of_output
from attar._src.model.interface import flatten_outputs
from attar._src.model.programs import copy_graph
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs

#: Largest difference of floating-point models, relative to the largest output: orders of summation differ.
FLOAT_TOLERANCE = 1e-3
#: Quantized models can differ by one step at ties. The mean difference should be at most this share of the mean output,
MEAN_PART = 0.1
#: and at least this share of predictions (of scores) or elements (of integer outputs) should agree.
EQUAL_SHARE = 0.98
#: Of integer outputs of a model with quantized activations, whose ties may be ordered either way.
TIED_SHARE = 0.8
_ORDERED = (
    ". Where a step orders near values (topk, argmax, sort), rounding reorders them: leave it out of the module, or "
    "let its input and what is gathered by it stay in floating point (keep_activations)"
)
#: Largest number of inputs to compare: float64 is slow, and errors show on the first inputs.
EXAMPLES = 512
#: Of a large module fewer, those that take this number of multiplications and additions, and at least ENOUGH.
OPERATIONS = 1e10
ENOUGH = 16
#: In float64 a batch of so many stays in the cache: a ResNet-20 takes half the time of batches of 64.
_PART = 8


@dataclass(frozen=True)
class Parity:
    """Differences between a decoded file and its module in PyTorch on real inputs.

    Attributes:
        examples: number of inputs.
        largest_difference, mean_difference: absolute difference of an output element.
        largest_output, mean_output: absolute output element of the module.
        equal_predictions: share of positions with the same (or a tied) largest element, along axis 1 of outputs with
            four or more axes (``(N, C, H, W)`` scores), along the last axis of others; 1 if no output has such an axis.
        outputs: name of an output -> its kind (``measure/difference.py``) and its own differences.
    """

    examples: int
    largest_difference: float
    largest_output: float
    mean_difference: float
    mean_output: float
    equal_predictions: float
    outputs: Mapping[str, tuple[str, Difference]] = field(default_factory=dict, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of all outputs together as JSON values."""
        return {key: value for key, value in vars(self).items() if key != "outputs"}

    def check(self, what: str, *, integers: bool) -> Parity:
        """Return self if the differences of every output are within tolerance.

        Predictions count only where an output has scores, and not where the difference to the runner-up is so small
        that rounding explains the change.

        Args:
            what: prefix of the error.
            integers: whether activations are quantized.

        Raises:
            ParityError: orders of summation (or, with ``integers``, ties of rounding) cannot explain the differences.
        """
        for name, (kind, seen) in self.outputs.items():
            fault = _fault(kind, seen, integers=integers)
            if fault:
                which = f"output {name!r}: " if len(self.outputs) > 1 else ""
                ordered = integers and any(each == INTEGERS for each, _ in self.outputs.values())
                raise ParityError(f"{what}: {which}{fault}{_ORDERED if ordered else ''}")
        return self


def _fault(kind: str, seen: Difference, *, integers: bool) -> str:
    """Return what is wrong with an output; empty if nothing is."""
    if not seen.finite:
        return "an output is not finite"
    if kind == INTEGERS:
        # Rounded values tie, and indices among equal ones (topk, sort) may come in any order.
        required = TIED_SHARE if integers else _required(seen.elements)
        few = seen.equal_elements < required
        return f"{seen.equal_elements:.2%} of the integers agree, {required:.0%} are required" if few else ""
    if not integers:
        if seen.largest <= FLOAT_TOLERANCE * max(seen.largest_output, 1.0):
            return ""
        return (
            f"outputs differ by up to {seen.largest:.3g} where the largest is {seen.largest_output:.3g}; at most "
            f"{FLOAT_TOLERANCE:g} of it is allowed"
        )
    if seen.mean > MEAN_PART * seen.mean_output + 1e-6:
        return (
            f"outputs differ by {seen.mean:.3g} on average where their mean is {seen.mean_output:.3g}; at most "
            f"{MEAN_PART:g} of it is allowed"
        )
    share, required = seen.decided / max(seen.positions, 1), _required(seen.positions)
    if kind == SCORES and share < required:
        return f"predictions agree on {share:.2%} of {seen.positions} positions, {required:.0%} are required"
    return ""


def _required(count: int) -> float:
    """Return the share that should agree; of fewer than 50, 98 % would be all of them: one may be a tie."""
    return min(EQUAL_SHARE, 1 - 1 / max(count, 1))


def compare_outputs(
    session: Session, module: Callable[..., Any], batches: Iterable[BatchInputs], what: str = "parity"
) -> Parity:
    """Run a decoded file and a module on the same real inputs and compare their outputs.

    The module takes the tensors of a batch by position, in float64: integer kernels sum exactly, and float32 would add
    rounding of its own. ``what`` labels the progress bar.
    """
    names = [port.name for port in session.inputs]
    seen = {port.name: Difference() for port in session.outputs}
    kinds: dict[str, str] = {}
    examples = 0
    with torch.no_grad():
        for batch in track(list(batches), what):
            expected = output_arrays(module(*(each.double() if each.is_floating_point() else each for each in batch)))
            outputs = session.run({name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)})
            examples += batch[0].shape[session.inputs[0].batch_axis]
            for (name, got), want in zip(outputs.items(), expected, strict=True):
                _same_shape(name, got, want)
                seen[name].add(got, want)
                kinds.setdefault(name, kind_of_output(want, name, main=name == session.main_output))
    return _parity(examples, {name: (kinds.get(name, SCORES), each) for name, each in seen.items()})


def _parity(examples: int, outputs: Mapping[str, tuple[str, Difference]]) -> Parity:
    """Return the figures of all outputs together, and of each."""
    seen = [each for _, each in outputs.values()]
    elements, positions = (max(sum(getattr(each, of) for each in seen), 1) for of in ("elements", "positions"))
    finite = all(each.finite for each in seen)
    return Parity(
        examples=examples,
        # max() would ignore a NaN.
        largest_difference=max((each.largest for each in seen), default=0.0) if finite else np.inf,
        largest_output=max((each.largest_output for each in seen), default=0.0),
        mean_difference=sum(each.absolute for each in seen) / elements,
        mean_output=sum(each.absolute_output for each in seen) / elements,
        equal_predictions=sum(each.agreeing for each in seen) / positions if any(e.positions for e in seen) else 1.0,
        outputs=outputs,
    )


def _same_shape(name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
    if got.shape != want.shape:
        raise ParityError(
            f"output {name!r} has the shape {got.shape} in the file and {want.shape} in the module. If it packs "
            "sequences, let the longest of each batch fill it, or write pad_packed_sequence(..., "
            "total_length=x.shape[1]): a file returns as many steps as it is given"
        )


def compared(inputs: CalibrationInputs, graph: fx.GraphModule, *, cut: bool, share: float = 1) -> CalibrationInputs:
    """Return the first inputs, as many as a comparison is worth: EXAMPLES, or fewer where ``graph`` takes long.

    Example: an encoder with 3e9 operations for 128 tokens is compared on ``ENOUGH`` sequences, a ResNet-20 with 8e7 for
    an image on 121 images. ``cut``: whether the graph takes batches of any size;
    ``share``: divides the number, where fewer are enough or where an example takes less time (0.5).
    """
    few = inputs.example(2) if cut else inputs.batches[0]
    one = operations(graph, few) / max(inputs.count(few), 1)
    worth = EXAMPLES if one == 0 else min(EXAMPLES, max(ENOUGH, int(OPERATIONS / one)))
    return inputs.first(max(2, int(worth / share)), cut=cut)


def parity_inputs(
    inputs: CalibrationInputs, graph: fx.GraphModule, *, cut: bool, share: float = 1
) -> CalibrationInputs:
    """Return what :func:`compared` does, in small batches if ``cut``.

    Packed sequences stay together: without ``total_length`` the longest of a batch decides how many steps come out.
    """
    some = compared(inputs, graph, cut=cut, share=share)
    packed = any(str(node.target).startswith("attar.packed_") for node in graph.graph.nodes)
    return some.in_parts(_PART) if cut and not packed else some


#: What :func:`operations` has counted, by graph and shapes of inputs: a graph does not change once it is compared.
_COUNTED: WeakKeyDictionary[fx.GraphModule, dict[tuple[torch.Size, ...], int]] = WeakKeyDictionary()


def operations(graph: fx.GraphModule, batch: BatchInputs) -> int:
    """Return the multiplications and additions of a batch."""
    known, shapes = _COUNTED.setdefault(graph, {}), tuple(each.shape for each in batch)
    if shapes not in known:
        known[shapes] = _count(graph, batch)
    return known[shapes]


def _count(graph: fx.GraphModule, batch: BatchInputs) -> int:
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_RECURRENT) as counter:
        copy_graph(graph)(*batch)
    return int(counter.get_total_flops())


def _recurrent_operations(x: Sequence[int], w_input: Sequence[int], w_state: Sequence[int], *_: Any, **__: Any) -> int:
    """Two for each element of a layer's weights at each step: ``x`` is ``(time, batch, features)``."""
    return 2 * x[0] * x[1] * (math.prod(w_input) + math.prod(w_state))


_RECURRENT = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_operations}


def output_arrays(output: Any) -> list[NDArray[Any]]:
    """Return the tensors of a module's output in order, as arrays."""
    # force: a view with a lazy minus, such as the imaginary part of a conjugate, is computed.
    return [tensor.detach().numpy(force=True) for tensor in flatten_outputs(output).values()]
