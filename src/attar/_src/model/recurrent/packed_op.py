"""Recurrent layers on padded sequences with lengths, as operators of PyTorch: ``attar.packed_lstm`` and so on.

``packed_lstm(x, lengths, ...)`` is ``pad(lstm(pack(x, lengths)))``: it reads ``x (time, batch, features)``, stops each
sequence at its length, and writes zeros behind it. ``lengths`` is int64 ``(batch,)``, in descending order; ONNX's
``sequence_lens`` needs no order. In PyTorch it runs the packed kernel itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Kinds of recurrent layer; each has the overloads ``aten.KIND.input`` and ``aten.KIND.data``.
KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")

NAMESPACE = "attar"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def _define(kind: str) -> None:
    states, returned = (
        ("Tensor[] hx", "(Tensor, Tensor, Tensor)") if kind == "lstm" else ("Tensor hx", "(Tensor, Tensor)")
    )
    _LIBRARY.define(
        f"packed_{kind}(Tensor input, Tensor lengths, {states}, Tensor[] params, bool has_biases, int num_layers, "
        f"float dropout, bool train, bool bidirectional) -> {returned}"
    )
    layer = getattr(torch.ops.aten, kind).data

    def run(input: Tensor, lengths: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        packed, sizes = torch.ops.aten._pack_padded_sequence(input, lengths.cpu(), False)
        output, *states = layer(packed, sizes, *rest)
        padded, _ = torch.ops.aten._pad_packed_sequence(output, sizes, False, 0.0, len(input))
        return (padded, *states)

    _LIBRARY.impl(f"packed_{kind}", run, "CompositeImplicitAutograd")


for _kind in KINDS:
    _define(_kind)
