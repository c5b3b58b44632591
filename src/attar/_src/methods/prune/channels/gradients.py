"""Gradients of the loss of labelled examples, which scores in first order read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from attar._src.core.errors import DataError
from attar._src.measure.class_layout import ClassLayout
from attar._src.methods.objectives.by_outputs import HardLoss
from attar._src.methods.prune.channels.pruning import Gradients
from attar._src.model.capture import CapturedModel
from attar._src.model.interface import flatten_outputs, main_output
from attar._src.train.batch import Batch
from attar._src.work.objective import LossInputs


def hard_loss(outputs: Any, batch: Batch, layout: ClassLayout) -> torch.Tensor:
    """Return the mean loss of a labelled batch: ``cross_entropy``, or ``binary_cross_entropy`` where outputs and
    targets are yes or no each."""
    every, main = tuple(flatten_outputs(outputs).values()), main_output(outputs)
    sources = LossInputs(main, every, batch, {}, 0.0, layout=layout)
    sources = LossInputs(main, every, batch, {}, 0.0, layout=layout.settled(main.shape, sources.target_shape))
    return HardLoss().loss(sources)


def loss_gradients(captured: CapturedModel, batches: Iterable[Batch], layout: ClassLayout) -> Gradients:
    """Return the gradient of the mean loss of batches by name of a parameter.

    The module is in evaluation mode; the loss is :func:`hard_loss`.

    Raises:
        DataError: there are no labels.
    """
    program = captured.copy(train=False)
    parameters = {name: each.detach().requires_grad_() for name, each in program.named_parameters()}
    total = {name: torch.zeros_like(each) for name, each in parameters.items()}
    count = 0
    for batch in batches:
        if batch.targets is None:
            raise DataError(
                "this score reads the gradient of a loss, which needs labels; use l1, l2 or batch_norm without"
            )
        outputs = torch.func.functional_call(program, parameters, batch.pick(captured.names))
        loss = hard_loss(outputs, batch, layout) * len(batch)
        for name, each in zip(total, torch.autograd.grad(loss, [*parameters.values()], allow_unused=True), strict=True):
            if each is not None:
                total[name] += each
        count += len(batch)
    return {name: each / max(count, 1) for name, each in total.items()}
