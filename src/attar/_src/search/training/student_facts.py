"""What ways to train should know of a module and its training examples."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attar._src.core.errors import AttarError
from attar._src.model.blocks.find import find_residual_layers
from attar._src.model.capture import capture
from attar._src.model.interface import call_by_name, main_output
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.model_source import shared_parameters

#: Examples of a step, by the least number of training examples.
_BATCHES = ((5000, 128), (500, 64), (0, 16))
#: Optimizers for networks that were trained before, by what they have.
_SGD = {"name": "sgd", "lr": 0.03, "weight_decay": 1.0e-4}
_ADAMW = {"name": "adamw", "lr": 0.002}
_TRAINED_BY_ADAM = (nn.RNNBase, nn.LayerNorm, nn.MultiheadAttention, nn.Embedding)
#: Steps that are timed; the first warms up.
_TIMED = 3


@dataclass(frozen=True)
class StudentFacts:
    """Figures of a module and of its training examples.

    Attributes:
        weights: elements of all weights.
        vectors: elements of biases and norms.
        channels: output channels of all weights.
        layers: residual layers that can be removed.
        examples: of the training split.
        labels: whether they have labels.
        batch: examples of a step.
        optimizer: as a recipe has it.
        step_seconds: of a plain step.
    """

    weights: int
    vectors: int
    channels: int
    layers: int
    examples: int
    labels: bool
    batch: int
    optimizer: dict[str, Any]
    step_seconds: float

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.examples / self.batch)

    @classmethod
    def of(cls, prepared: Preparation, student: str) -> StudentFacts:
        """Measure the module of a model on a batch of its training examples."""
        source, split = prepared.sources[student], prepared.splits.train
        module = source.module
        assert module is not None
        examples = split.examples or 0
        batch = min(next(size for least, size in _BATCHES if examples >= least), examples)
        first = next(iter(prepared.splits.feed(split, shared_parameters(prepared.sources), batch=batch).once()))
        names = tuple(name for name in source.parameters if name in first.names)
        inputs = first.pick(names)
        matrices = [each.shape for each in module.parameters() if each.dim() > 1]
        by_adam = any(isinstance(each, _TRAINED_BY_ADAM) for each in module.modules())
        return cls(
            weights=sum(math.prod(shape) for shape in matrices),
            vectors=sum(each.numel() for each in module.parameters() if each.dim() < 2),
            channels=sum(shape[0] for shape in matrices),
            layers=_removable_layers(module, names, inputs),
            examples=examples,
            labels=split.targets is not None,
            batch=batch,
            optimizer=dict(_ADAMW if by_adam else _SGD),
            step_seconds=_seconds_of_step(module, names, inputs),
        )


def _removable_layers(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> int:
    try:
        found = find_residual_layers(module, capture(module, inputs, names=names))
    except AttarError:
        # What cannot be captured is told of by the run; there is nothing to remove.
        return 0
    return len(found.layers)


def _seconds_of_step(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> float:
    """Return the least time of a few steps of training on one batch, forward and backward, on a copy."""
    trained, taken = copy.deepcopy(module).train(), []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        main_output(call_by_name(trained, names, inputs)).float().square().mean().backward()
        taken.append(time.perf_counter() - begun)
    return min(taken)
