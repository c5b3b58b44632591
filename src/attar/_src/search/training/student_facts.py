"""What ways to train should know of a module and its training examples."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attar._src.core.errors import AttarError
from attar._src.model.blocks.find import find_residual_layers
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.interface import call_by_name, main_output
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.model_source import shared_parameters
from attar._src.train.precision import Decision, Layout, Precision, measure_precision

#: Examples of a step, by the least number of training examples.
_BATCHES = ((5000, 128), (500, 64), (0, 16))
#: Optimizers for networks that were trained before, by what they have.
_SGD = {"name": "sgd", "lr": 0.03, "weight_decay": 1.0e-4}
_ADAMW = {"name": "adamw", "lr": 0.002}
_TRAINED_BY_ADAM = (nn.RNNBase, nn.LayerNorm, nn.MultiheadAttention, nn.Embedding)
#: Steps that are timed; the first warms up.
_TIMED = 3
#: Seconds of an epoch from which it is measured how it is trained fastest: shorter trainings have nothing to gain, and
#: their files do not depend on a measurement.
_LONG_EPOCH = 5.0


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
        step_seconds: of a plain step in this precision and layout.
        precision, layout: which train fastest on this machine, where an epoch takes long.
        output_seconds: that the outputs of the teacher for the examples of a step take.
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
    precision: Precision = "32-true"
    layout: Layout = "contiguous"
    output_seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.examples / self.batch)

    @classmethod
    def of(cls, prepared: Preparation, student: str, teacher: str) -> StudentFacts:
        """Measure the module of a model, and its teacher, on a batch of training examples."""
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
        captured = _captured(module, names, inputs)
        plain = seconds = _seconds(partial(_step, copy.deepcopy(module).train(), names, inputs))
        teaching, fastest = prepared.sources[teacher], Decision("32-true", "contiguous", {})
        if captured is not None and examples / batch * plain >= _LONG_EPOCH:
            fastest = measure_precision(captured.training, inputs)
            seconds = fastest.figures.get(f"{fastest.precision} {fastest.layout}") or plain
        outputs = 0.0
        if teaching.module is not None:
            read = tuple(name for name in teaching.parameters if name in first.names)
            outputs = _seconds(partial(_outputs, copy.deepcopy(teaching.module).eval(), read, first.pick(read)))
        return cls(
            weights=sum(math.prod(shape) for shape in matrices),
            vectors=sum(each.numel() for each in module.parameters() if each.dim() < 2),
            channels=sum(shape[0] for shape in matrices),
            layers=_removable_layers(module, captured),
            examples=examples,
            labels=split.targets is not None,
            batch=batch,
            optimizer=dict(_ADAMW if by_adam else _SGD),
            step_seconds=seconds,
            # A teacher gains by precision and layout about what the student does.
            output_seconds=outputs * seconds / plain,
            precision=fastest.precision,
            layout=fastest.layout,
        )


def _captured(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> CapturedModel | None:
    try:
        return capture(module, inputs, names=names)
    except AttarError:
        # What cannot be captured is told of by the run.
        return None


def _removable_layers(module: nn.Module, captured: CapturedModel | None) -> int:
    try:
        return 0 if captured is None else len(find_residual_layers(module, captured).layers)
    except AttarError:
        return 0


def _step(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    main_output(call_by_name(module, names, inputs)).float().square().mean().backward()


@torch.no_grad()
def _outputs(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    call_by_name(module, names, inputs)


def _seconds(call: Callable[[], None]) -> float:
    """Return the least time of a few calls."""
    taken = []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)
