"""Gradients of the loss of labelled examples, which scores in first order read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from attar._src.core.errors import DataError
from attar._src.measure.class_layout import ClassLayout
from attar._src.methods.objectives.by_outputs import HardLoss
from attar._src.methods.prune.channels.ranking import Gradients, PartGradients
from attar._src.model.capture import CapturedModel
from attar._src.model.interface import flatten_outputs, main_output
from attar._src.train.batch import Batch
from attar._src.work.context import TrainingContext
from attar._src.work.objective import LossInputs

#: Examples of a part: few, as the gradients of many cancel.
PART = 16


def hard_loss(outputs: Any, batch: Batch, layout: ClassLayout) -> torch.Tensor:
    """Return the mean loss of a labelled batch: ``cross_entropy``, or ``binary_cross_entropy`` where outputs and
    targets are yes or no each."""
    every, main = tuple(flatten_outputs(outputs).values()), main_output(outputs)
    sources = LossInputs(main, every, batch, {}, 0.0, layout=layout)
    sources = LossInputs(main, every, batch, {}, 0.0, layout=layout.settled(main.shape, sources.target_shape))
    return HardLoss().loss(sources)


def part_gradients(captured: CapturedModel, batches: Iterable[Batch], layout: ClassLayout) -> PartGradients:
    """Yield the gradient of the mean loss of every ``PART`` examples; of whole batches where their size is fixed.

    The module is in evaluation mode; the loss is :func:`hard_loss`.

    Raises:
        DataError: there are no labels.
    """
    axes = captured.axes[0] if captured.axes else None
    fixed = axes is None or axes.batch not in axes.varying
    parts = batches if fixed else (part for batch in batches for part in _parts(batch))
    return _gradients(captured, parts, layout)


def training_gradients(
    captured: CapturedModel, context: TrainingContext, *, batch: int, batches: int
) -> Iterator[Gradients]:
    """Yield those of the first batches of a stage's training examples, the same on all ranks."""
    seen = islice(context.feed(batch).epoch(0), batches)
    for own in part_gradients(captured, seen, context.layout):
        yield {name: _reduced(context.fabric.all_reduce(each, reduce_op="mean")) for name, each in own.items()}


def _reduced(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value


def _parts(batch: Batch) -> Iterator[Batch]:
    for start in range(0, len(batch), PART):
        yield batch.part(slice(start, start + PART))


def _gradients(captured: CapturedModel, batches: Iterable[Batch], layout: ClassLayout) -> Iterator[Gradients]:
    program = captured.copy(train=False)
    parameters = {name: each.detach().requires_grad_() for name, each in program.named_parameters()}
    for batch in batches:
        if batch.targets is None:
            raise DataError(
                "this score reads the gradient of a loss, which needs labels; use l1, l2, wanda or batch_norm without"
            )
        outputs = torch.func.functional_call(program, parameters, batch.pick(captured.names))
        found: Any = torch.autograd.grad(hard_loss(outputs, batch, layout), [*parameters.values()], allow_unused=True)
        pairs = zip(parameters.items(), found, strict=True)
        yield {name: torch.zeros_like(value) if each is None else each for (name, value), each in pairs}
