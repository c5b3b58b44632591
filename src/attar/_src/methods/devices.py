"""Moving a learner to the training device and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from attar._src.model.programs import to_device
from attar._src.work.learner import Learner


@contextlib.contextmanager
def on_device(learner: Learner, device: torch.device) -> Iterator[None]:
    """Move ``learner`` to ``device`` for the context, then back to the CPU, where models are deployed."""
    if device.type == "cpu":
        yield
        return
    _move(learner, device)
    try:
        yield
    finally:
        _move(learner, torch.device("cpu"))


@contextlib.contextmanager
def on_cpu(learner: Learner) -> Iterator[None]:
    """Move ``learner`` to the CPU for the context, then back to where it is trained."""
    device = next((each.device for each in learner.module.parameters()), torch.device("cpu"))
    if device.type == "cpu":
        yield
        return
    _move(learner, torch.device("cpu"))
    try:
        yield
    finally:
        _move(learner, device)


def _move(learner: Learner, device: torch.device) -> None:
    """Move module, programs and constraints; buffers that they share stay shared."""
    programs = (learner.captured.training, learner.captured.evaluation)
    moved: dict[int, torch.Tensor] = {}
    old = []  # keeps old buffers alive, so that their ids, the keys of ``moved``, are not reused
    for module in (learner.module, *programs):
        for child in module.modules():
            for name, buffer in child._buffers.items():
                if buffer is not None:
                    old.append(buffer)
                    child._buffers[name] = moved.setdefault(id(buffer), buffer.to(device))
    for module in (learner.module, *programs, *learner.constraints):
        module.to(device)
    for program in programs:
        to_device(program, device)
