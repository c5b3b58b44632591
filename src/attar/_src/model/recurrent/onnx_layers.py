"""Recurrent layers in ONNX that its exporter does not know: ``RNN``, and all layers on padded sequences with lengths.

| operator in PyTorch | in ONNX, for each layer |
|---|---|
| ``aten.rnn_tanh.input``, ``aten.rnn_relu.input`` | ``RNN`` |
| ``attar.packed_lstm``, ``packed_gru``, ``packed_rnn_tanh``, ``packed_rnn_relu`` | with ``sequence_lens`` |

ONNX Runtime writes zeros behind the end of each sequence and returns the states at its end, as PyTorch does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnxscript import FLOAT, INT64, opset18

_INT32 = 6
#: Its functions take Python's lists for constants, which their annotations do not say.
op: Any = opset18


@dataclass(frozen=True)
class _Form:
    """An ONNX operator: its gates in PyTorch's order, by position; its attributes; whether it has a cell state."""

    make: Any
    gates: tuple[int, ...] = (0,)
    cell: bool = False
    attributes: tuple[tuple[str, Any], ...] = ()


_FORMS = {
    "lstm": _Form(op.LSTM, (0, 3, 1, 2), cell=True),
    "gru": _Form(op.GRU, (1, 0, 2), attributes=(("linear_before_reset", 1),)),
    "rnn_tanh": _Form(op.RNN),
    "rnn_relu": _Form(op.RNN),
}


@dataclass(frozen=True)
class _Layers:
    """The layers of one node."""

    kind: str
    params: Sequence[Any]
    biases: bool
    count: int
    bidirectional: bool

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def run(self, x: Any, lengths: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        """Return outputs ``(time, batch, directions * hidden)`` and final states of all layers."""
        form, hidden = _FORMS[self.kind], states[0].shape[2]
        finals: list[list[Any]] = [[] for _ in states]
        for layer in range(self.count):
            first, last = layer * self.directions, (layer + 1) * self.directions
            starts = [op.Slice(state, [first], [last], [0]) for state in states]
            W, R, B = self._weights(layer)
            made = form.make(
                x, W, R, B, lengths, *starts, hidden_size=hidden, direction=self._direction, **self._attributes
            )
            for found, state in zip(finals, made[1:], strict=True):
                found.append(state)
            # (time, directions, batch, hidden) -> (time, batch, directions * hidden)
            x = op.Reshape(op.Transpose(made[0], perm=[0, 2, 1, 3]), [0, 0, self.directions * hidden])
        return (x, *(op.Concat(*found, axis=0) if self.count > 1 else found[0] for found in finals))

    @property
    def _direction(self) -> str:
        return "bidirectional" if self.bidirectional else "forward"

    @property
    def _attributes(self) -> dict[str, Any]:
        relu = {"activations": ["Relu"] * self.directions} if self.kind == "rnn_relu" else {}
        return {**dict(_FORMS[self.kind].attributes), **relu}

    def _weights(self, layer: int) -> tuple[Any, Any, Any]:
        """Return ONNX's W, R and B (None without biases): a direction an entry, gates in ONNX's order."""
        each = 4 if self.biases else 2
        starts = [(layer * self.directions + direction) * each for direction in range(self.directions)]
        of = [[self._reordered(self.params[start + place]) for place in range(each)] for start in starts]
        parts = [[one[0] for one in of], [one[1] for one in of]]
        if self.biases:
            parts.append([op.Concat(one[2], one[3], axis=0) for one in of])
        joined = [op.Concat(*(op.Unsqueeze(each, [0]) for each in part), axis=0) for part in parts]
        return joined[0], joined[1], joined[2] if self.biases else None

    def _reordered(self, weight: Any) -> Any:
        gates = _FORMS[self.kind].gates
        if len(gates) == 1:
            return weight
        size = weight.shape[0] // len(gates)
        return op.Concat(*(op.Slice(weight, [gate * size], [(gate + 1) * size], [0]) for gate in gates), axis=0)


def _whole(kind: str) -> Callable[..., Any]:
    def layers(
        input: FLOAT,
        hx: FLOAT,
        params: Sequence[FLOAT],
        has_biases: bool,
        num_layers: int,
        dropout: float,  # noqa: ARG001 the exporter matches arguments by name
        train: bool,  # noqa: ARG001
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[FLOAT, FLOAT]:
        x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
        y, state = _Layers(kind, params, has_biases, num_layers, bidirectional).run(x, None, [hx])
        return op.Transpose(y, perm=[1, 0, 2]) if batch_first else y, state

    return layers


def _packed(kind: str) -> Callable[..., Any]:
    def layers(
        input: FLOAT,
        lengths: INT64,
        hx: FLOAT,
        params: Sequence[FLOAT],
        has_biases: bool,
        num_layers: int,
        dropout: float,  # noqa: ARG001 the exporter matches arguments by name
        train: bool,  # noqa: ARG001
        bidirectional: bool,
    ) -> tuple[FLOAT, FLOAT]:
        made = _Layers(kind, params, has_biases, num_layers, bidirectional)
        return made.run(input, op.Cast(lengths, to=_INT32), [hx])

    return layers


def _packed_lstm(
    input: FLOAT,
    lengths: INT64,
    hx: Sequence[FLOAT],
    params: Sequence[FLOAT],
    has_biases: bool,
    num_layers: int,
    dropout: float,  # noqa: ARG001
    train: bool,  # noqa: ARG001
    bidirectional: bool,
) -> tuple[FLOAT, FLOAT, FLOAT]:
    made = _Layers("lstm", params, has_biases, num_layers, bidirectional)
    return made.run(input, op.Cast(lengths, to=_INT32), hx)


#: Operator of PyTorch -> the function that makes its nodes, for ``torch.onnx.export``.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.attar.packed_lstm.default: _packed_lstm,
    **{getattr(torch.ops.aten, kind).input: _whole(kind) for kind in ("rnn_tanh", "rnn_relu")},
    **{getattr(torch.ops.attar, f"packed_{kind}").default: _packed(kind) for kind in ("gru", "rnn_tanh", "rnn_relu")},
}
