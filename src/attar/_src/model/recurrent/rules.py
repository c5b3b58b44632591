"""Shapes of recurrent layers while exporting: one rule in place of running the cell step by step.

PyTorch finds the shapes of ``aten.lstm.input`` by decomposing it into a cell for each step: time in proportion to the
length, and a length that is fixed (pytorch/pytorch#115092). A rule needs neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._decomp import decomposition_table

from attar._src.core.errors import ModelError
from attar._src.model.recurrent.packed_op import KINDS

_LOCK = threading.RLock()
_KEY = DispatchKey.CompositeImplicitAutograd


@contextmanager
def whole_layers() -> Iterator[None]:
    """Let the exporters keep recurrent layers whole. Eager PyTorch reads these rules in no thread."""
    with _LOCK, ExitStack() as stack:
        for kind in KINDS:
            layer = getattr(torch.ops.aten, kind).input
            stack.enter_context(patch.dict(decomposition_table, {layer: _input_shapes}))
            stack.enter_context(_rule(layer, _input_shapes))
            stack.enter_context(_rule(getattr(torch.ops.attar, f"packed_{kind}").default, _packed_shapes))
        yield


@contextmanager
def _rule(operator: Any, rule: Callable[..., Any]) -> Iterator[None]:
    """Let a composite operator compute ``rule`` on the tensors without data that exporters use."""
    before = dict(operator.py_kernels)
    # PyTorch decomposes under each of the keys it has kernels for: all take the rule.
    operator.py_kernels.update(dict.fromkeys({*before, _KEY}, rule))
    operator._dispatch_cache.clear()
    try:
        yield
    finally:
        operator.py_kernels.clear()
        operator.py_kernels.update(before)
        operator._dispatch_cache.clear()


def _input_shapes(x: Tensor, hx: Any, *rest: Any) -> tuple[Tensor, ...]:
    """Return the outputs of ``aten.lstm.input``, whose last arguments are ``bidirectional`` and ``batch_first``."""
    *_, bidirectional, batch_first = rest
    return _shapes(x, hx, bidirectional, batch_axis=0 if batch_first else 1)


def _packed_shapes(x: Tensor, lengths: Tensor, hx: Any, *rest: Any) -> tuple[Tensor, ...]:
    """Return the outputs of ``attar.packed_lstm``, whose last argument is ``bidirectional``."""
    torch._check(lengths.shape[0] == x.shape[1])
    return _shapes(x, hx, rest[-1], batch_axis=1)


def _shapes(x: Tensor, hx: Any, bidirectional: bool, *, batch_axis: int) -> tuple[Tensor, ...]:
    states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if states[0].shape[2] != states[-1].shape[2]:
        raise ModelError(
            "an LSTM with proj_size has no counterpart in ONNX; use layers without it, and a linear layer behind each"
        )
    for state in states:
        torch._check(state.shape[1] == x.shape[batch_axis])
    width = states[0].shape[2] * (2 if bidirectional else 1)
    # Fresh tensors: an output that is an input itself would be taken for one.
    return (x.new_empty(*x.shape[:2], width), *(state.new_empty(state.shape) for state in states))
