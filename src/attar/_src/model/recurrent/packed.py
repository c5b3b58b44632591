"""Packed sequences while exporting: ``pack_padded_sequence`` keeps the padding and remembers the lengths.

A packed sequence has as many rows as its data, which no graph with fixed axes can express. While exporting it has the
rows of the padded batch, ``time * batch``, so that what a module computes for each row (a linear layer on ``.data``)
stays right; recurrent layers become ``attar.packed_lstm`` and so on, and ``pad_packed_sequence`` fills in what lies
behind the lengths. Without ``total_length`` it returns as many steps as the padded batch has, where PyTorch returns as
many as the longest sequence: the same if that fills the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules import rnn as layers
from torch.nn.utils import rnn as packing

from attar._src.core.errors import ModelError
from attar._src.model.recurrent.packed_op import KINDS

_VF: Any = torch._VF


class _Lengths:
    """In the place of ``PackedSequence.batch_sizes``: lengths ``(batch,)`` and the number of steps with padding."""

    device = torch.device("cpu")

    def __init__(self, lengths: Tensor, steps: int) -> None:
        self.lengths, self.steps = lengths, steps
        self.zeroed: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.lengths.shape[0]

    def __getitem__(self, step: int) -> int:
        if step != 0:
            raise ModelError("batch_sizes of a packed sequence cannot be exported; use the lengths instead")
        return self.batch

    def size(self, axis: int) -> int:
        """Return the number of steps with padding: a graph's shapes may not depend on its data."""
        return self.steps

    def rows(self, data: Tensor) -> Tensor:
        """Return data by step, ``(time, batch, ...)``."""
        rows: Tensor = data.unflatten(0, (self.steps, self.batch))
        return rows


@contextmanager
def padded_instead_of_packed() -> Iterator[None]:
    """Let modules that pack sequences be exported; code in other threads sees no difference."""
    with ExitStack() as stack:
        for module in (packing, layers):
            stack.enter_context(patch.object(module, "_VF", _Functions()))
        stack.enter_context(patch.object(nn.RNNBase, "check_forward_args", _checked(nn.RNNBase.check_forward_args)))
        yield


def _checked(original: Callable[..., None]) -> Callable[..., None]:
    def check(self: nn.RNNBase, x: Tensor, hidden: Any, batch_sizes: Any) -> None:
        # The check turns the batch size into a number. The operator compares the states itself.
        if not isinstance(batch_sizes, _Lengths):
            original(self, x, hidden, batch_sizes)

    return check


class _Functions:
    """``torch._VF``, which modules call, with other functions for what is padded instead of packed."""

    def __init__(self) -> None:
        for kind in KINDS:
            setattr(self, kind, _layer(kind))

    def __getattr__(self, name: str) -> Any:
        return getattr(_VF, name)

    def _pack_padded_sequence(self, x: Tensor, lengths: Tensor, batch_first: bool) -> Any:
        if not torch.compiler.is_exporting():
            return _VF._pack_padded_sequence(x, lengths, batch_first)
        x = x.transpose(0, 1) if batch_first else x
        torch._check(lengths.shape[0] == x.shape[1])
        return x.flatten(0, 1), _Lengths(lengths, x.shape[0])

    def _pad_packed_sequence(self, data: Tensor, sizes: Any, batch_first: bool, value: float, total: int) -> Any:
        if not isinstance(sizes, _Lengths):
            return _VF._pad_packed_sequence(data, sizes, batch_first, value, total)
        x = sizes.rows(data)
        if data is not sizes.zeroed or value != 0:
            behind = torch.arange(sizes.steps).unsqueeze(1) >= sizes.lengths
            x = x.masked_fill(behind.view(*behind.shape, *(1,) * (x.dim() - 2)), value)
        x = _of_length(x, total, value)
        return x.transpose(0, 1) if batch_first else x, sizes.lengths


def _of_length(x: Tensor, total: Any, value: float) -> Tensor:
    """Return ``x (time, ...)`` cut or padded to ``total`` steps, a number or a symbol for the time itself."""
    if not isinstance(total, int) or total == x.shape[0]:
        return x
    return torch.cat([x, x.new_full((total, *x.shape[1:]), value)])[:total]


def _layer(kind: str) -> Callable[..., Any]:
    whole, packed = getattr(_VF, kind), getattr(torch.ops.attar, f"packed_{kind}")

    def layer(data: Tensor, sizes: Any, *rest: Any) -> Any:
        if not isinstance(sizes, _Lengths):
            return whole(data, sizes, *rest)
        output, *states = packed(sizes.rows(data), sizes.lengths, *rest)
        sizes.zeroed = output.flatten(0, 1)
        return (sizes.zeroed, *states)

    return layer
