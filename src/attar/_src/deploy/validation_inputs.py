"""Examples that judge a file, apart from those that calibrate it, in the form that its graph takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from attar._src.core.errors import DataError
from attar._src.data.axes import Axes, Dynamic
from attar._src.deploy.first_run import prepare
from attar._src.work.calibration_inputs import CalibrationInputs


def validation_inputs(
    module: Any,
    validation: Any,
    example: Sequence[torch.Tensor],
    axes: Sequence[Axes],
    *,
    batch: int,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
) -> CalibrationInputs:
    """Return all examples of ``validation``, of a graph with a fixed batch size those of whole batches.

    Args:
        module: that was traced.
        validation: in a form that calibration data may have.
        example: on which the module was traced.
        axes: of its inputs, as they were traced.
        batch, collate, dynamic: as those of the calibration data.

    Raises:
        DataError: the graph takes no inputs of these shapes; the message has the line to write.
        ModelError: as :func:`prepare`.
    """
    _, read, _ = prepare(module, validation, examples=sys.maxsize, batch=batch, collate=collate, dynamic=dynamic)
    if axes[0].batch not in axes[0].varying:
        size = example[0].shape[axes[0].batch]
        kept = [place for place, each in enumerate(read.batches) if read.count(each) == size]
        if not kept:
            raise DataError(
                f"validation has no batch of {size} examples, the batch size that the data fix; give {size} or more"
            )
        targets = tuple(read.targets[place] for place in kept) if read.targets else ()
        read = replace(read, batches=tuple(read.batches[place] for place in kept), targets=targets)
    for given in read.batches:
        for name, traced, own, at in zip(read.names, example, given, axes, strict=True):
            ranks = range(max(traced.dim(), own.dim()))
            differ = [k for k in ranks if k not in at.varying and own.shape[k : k + 1] != traced.shape[k : k + 1]]
            if differ:
                raise DataError(
                    f"validation gives {name!r} the shape {tuple(own.shape)}, and the data {tuple(traced.shape)}, "
                    f"whose axis {differ[0]} does not vary; write dynamic={{{name!r}: {(*at.varying, *differ)}}}, or "
                    "pad both alike"
                )
    return read
