"""LSTM and GRU in PyTorch as the runtime computes them dynamically: input sequence and states on grids of the moment.

The input of a layer is rounded as a whole, over all steps and examples; the state that a step reads is rounded at each
step, over all examples. What lies behind the end of a sequence counts as zeros, in input and state. Gates and the cell
state of an LSTM are in floating point.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from attar._src.work.dynamic_rounding import DynamicRound

#: States of one direction: ``(batch, hidden)`` each, the one that multiplies weights first.
_States = tuple[Tensor, ...]


class DynamicRecurrent(nn.Module):
    """``aten.lstm.input``, ``aten.gru.input``, ``attar.packed_lstm`` or ``attar.packed_gru`` with their arguments.

    Args:
        step: computes the states of a step of gates: :func:`lstm_step` or :func:`gru_step`.
        packed: whether lengths follow the input.
    """

    def __init__(self, step: Callable[[Tensor, Tensor, _States], _States], *, packed: bool) -> None:
        super().__init__()
        self.step, self.packed = step, packed
        self.round = DynamicRound()

    def forward(self, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """Return the outputs and the final states of all layers."""
        lengths, batch_first = (rest[0], False) if self.packed else (None, rest[-1])
        hx, params, biases, count, _, _, bidirectional, *_ = rest[1:] if self.packed else rest
        x = x.transpose(0, 1) if batch_first else x
        order = _Order.of(x, lengths)
        starts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        directions, each = (2 if bidirectional else 1), (4 if biases else 2)
        finals: list[_States] = []
        for layer in range(count):
            x, made = self.round(order.within(x)), []
            for reverse in range(directions):
                place = layer * directions + reverse
                weights = params[place * each : (place + 1) * each]
                y, final = self._run(x, order, bool(reverse), tuple(state[place] for state in starts), weights)
                made.append(y)
                finals.append(final)
            x = torch.cat(made, -1)
        ends = [torch.stack(state) for state in zip(*finals, strict=True)]
        return (x.transpose(0, 1) if batch_first else x, *ends)

    def _run(
        self, x: Tensor, order: _Order, reverse: bool, states: _States, weights: Sequence[Tensor]
    ) -> tuple[Tensor, _States]:
        """Return the outputs ``(time, batch, hidden)`` and the final states of one direction of one layer."""
        w_input, w_state, *biases = weights
        of_input, of_state = biases or (None, None)
        inputs = functional.linear(order.turned(x) if reverse else x, w_input, of_input)
        outputs, final = [], states
        for step, now in enumerate(inputs):
            states = self.step(now, functional.linear(self.round(states[0]), w_state, of_state), states)
            if order.live is None:
                final = states
            else:
                live = order.live[step]
                final = tuple(torch.where(live, new, old) for new, old in zip(states, final, strict=True))
                states = (states[0] * live, *states[1:])
            outputs.append(states[0])
        y = torch.stack(outputs)
        return order.turned(y) if reverse else y, final


def lstm_step(inputs: Tensor, recurrent: Tensor, states: _States) -> _States:
    """Return h, c from both sums of the gates i, f, g, o ``(batch, 4 hidden)``."""
    gates = (inputs + recurrent).chunk(4, -1)
    i, f, o = (gates[place].sigmoid() for place in (0, 1, 3))
    c = f * states[1] + i * gates[2].tanh()
    return o * c.tanh(), c


def gru_step(inputs: Tensor, recurrent: Tensor, states: _States) -> _States:
    """Return h from both sums of the gates r, z, n ``(batch, 3 hidden)``."""
    (r, z, n), (of_r, of_z, of_n) = inputs.chunk(3, -1), recurrent.chunk(3, -1)
    n = (n + (r + of_r).sigmoid() * of_n).tanh()
    return (n + (z + of_z).sigmoid() * (states[0] - n),)


class _Order:
    """Steps of sequences that end at their lengths: ``live (time, batch, 1)``, None where all have all steps."""

    def __init__(self, live: Tensor | None, backward: Tensor | None) -> None:
        self.live, self._backward = live, backward

    @classmethod
    def of(cls, x: Tensor, lengths: Tensor | None) -> _Order:
        """Return the order of ``x (time, batch, ...)``."""
        if lengths is None:
            return cls(None, None)
        steps = torch.arange(len(x)).unsqueeze(1)
        live = steps < lengths
        return cls(live.unsqueeze(-1), torch.where(live, lengths - 1 - steps, steps).unsqueeze(-1))

    def within(self, x: Tensor) -> Tensor:
        """Return ``x`` with zeros behind the end of each sequence."""
        return x if self.live is None else torch.where(self.live, x, 0)

    def turned(self, x: Tensor) -> Tensor:
        """Return ``x`` with each sequence in the opposite order, what lies behind it in its place."""
        return x.flip(0) if self._backward is None else x.gather(0, self._backward.expand_as(x))


#: Operator -> the step, and whether lengths follow its input.
_KINDS = {
    "aten.lstm.input": (lstm_step, False),
    "aten.gru.input": (gru_step, False),
    "attar.packed_lstm.default": (lstm_step, True),
    "attar.packed_gru.default": (gru_step, True),
}


def dynamic_recurrent(node: fx.Node) -> DynamicRecurrent:
    """Return what computes an LSTM or GRU dynamically, of the arguments of its node."""
    step, packed = _KINDS[str(node.target)]
    return DynamicRecurrent(step, packed=packed)


def recur_dynamically(graph: fx.GraphModule, layers: Collection[str], prefix: str) -> None:
    """Let LSTMs and GRUs read rounded sequences and states, in place.

    Args:
        graph: changed in place.
        layers: names of nodes; those that are no LSTM or GRU stay as they are.
        prefix: of the submodules' names.
    """
    for node in list(graph.graph.nodes):
        if node.name not in layers or str(node.target) not in _KINDS:
            continue
        called = f"{prefix}{node.name}"
        graph.add_submodule(called, dynamic_recurrent(node))
        with graph.graph.inserting_before(node):
            made = graph.graph.call_module(called, node.args, dict(node.kwargs))
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
    graph.recompile()
