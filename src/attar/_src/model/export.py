"""What every export of a module needs: its mode, the axes that vary, and quiet; below capture and trace."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from attar._src.core.garbage import collection_paused

_LOUD = ("torch.onnx", "onnxscript", "torch.export", "torch.fx.experimental.symbolic_shapes")


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode, and each back into its own afterwards."""
    with _in_mode(module, train=False):
        yield


@contextlib.contextmanager
def training_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into training mode, and each back into its own afterwards."""
    with _in_mode(module, train=True):
        yield


@contextlib.contextmanager
def _in_mode(module: nn.Module, *, train: bool) -> Iterator[None]:
    modes = {child: child.training for child in module.modules()}
    module.train(train)
    # The fused encoder kernel has no counterpart in ONNX.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for child, mode in modes.items():
            child.training = mode


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence what the exporter says about itself; what concerns the user is raised by name."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        # The exporter prints the graph it had when it gave up.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), collection_paused():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def dynamic_shapes(module: nn.Module, example: Sequence[torch.Tensor], axes: Sequence[int]) -> Any:
    """Return what the exporters take as ``dynamic_shapes``: these axes of every input vary."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in kinds]
    shapes = [
        {axis: torch.export.Dim.DYNAMIC for axis in axes if axis < tensor.dim()} if tensor.dim() else None
        for tensor in example
    ]
    # A traced graph takes *args; only a signature with names can be addressed by them.
    return tuple(shapes) if len(names) < len(example) else dict(zip(names, shapes, strict=False))
