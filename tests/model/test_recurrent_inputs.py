"""What recurrent weights multiply: recomputed step by step from the cells."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attar._src.model.collect import Request, collect
from attar._src.model.recurrent.inputs import expose_inputs
from attar._src.model.statistics import InputHessian
from attar._src.model.trace import trace
from attar._src.model.weights import find_weights, weight_input


class Recurs(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(4, 3, **options)

    def forward(self, x):
        return self.rnn(x)[0]


class Packed(Recurs):
    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def cell_of(rnn, layer, back):
    """A cell with the weights of one layer and direction."""
    suffix = f"_l{layer}" + ("_reverse" if back else "")
    kind = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}[type(rnn).__name__]
    made = kind(getattr(rnn, f"weight_ih{suffix}").shape[1], 3, bias=rnn.bias)
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if rnn.bias else [])]
    made.load_state_dict({name: getattr(rnn, name + suffix) for name in names})
    return made, suffix


def stepped(rnn, x, lengths):
    """Return weight -> the vectors it multiplies, (count, size), one sequence after the other."""
    seen = {}
    outputs = [each[:length] for each, length in zip(x, lengths, strict=True)]
    for layer in range(rnn.num_layers):
        several = []
        for back in range(2 if rnn.bidirectional else 1):
            cell, suffix = cell_of(rnn, layer, back)
            made = []
            for sequence in outputs:
                state, out = None, []
                for step in sequence.flip(0) if back else sequence:
                    hidden = (
                        torch.zeros(3) if state is None else (state[0][0] if isinstance(state, tuple) else state[0])
                    )
                    seen.setdefault(f"weight_ih{suffix}", []).append(step)
                    seen.setdefault(f"weight_hh{suffix}", []).append(hidden)
                    state = cell(step[None], state)
                    out.append((state[0] if isinstance(state, tuple) else state)[0])
                made.append(torch.stack(out).flip(0) if back else torch.stack(out))
            several.append(made)
        outputs = [torch.cat(each, 1) for each in zip(*several, strict=True)]
    return {name: torch.stack(each) for name, each in seen.items()}


def hessians(graph, batch):
    graph, exposed = expose_inputs(graph)
    reads = {name: weight_input(graph, each, exposed) for name, each in find_weights(graph).items()}
    wanted = {name: (Request.of_input(read, InputHessian),) for name, read in reads.items()}
    return {name: found for name, (found,) in collect(graph, wanted, [batch], "collecting")}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"batch_first": True}),
        (nn.GRU, {"num_layers": 2, "batch_first": True}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (nn.GRU, {"bidirectional": True, "bias": False, "batch_first": True}),
        (nn.RNN, {"batch_first": True}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_hessians_are_those_of_the_cells(kind, options, packed):
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 5, 4), [5, 4, 2] if packed else [5, 5, 5]
    batch = (x, torch.tensor(lengths)) if packed else (x,)
    module = (Packed if packed else Recurs)(kind, **options)
    with torch.no_grad():
        wanted = stepped(module.rnn, x, lengths)
        found = hessians(trace(module, batch).graph, batch)
    assert found.keys() == {f"rnn.{name}" for name in wanted}
    for name, vectors in wanted.items():
        seen = found[f"rnn.{name}"]
        # Positions behind the end of a sequence count as zeros.
        torch.testing.assert_close(
            torch.from_numpy(seen.matrix[0] * seen.samples / 2).float(), vectors.T @ vectors, rtol=1e-4, atol=1e-5
        )


def test_time_first_and_the_outputs_stay():
    torch.manual_seed(0)
    module, x = Recurs(nn.GRU), torch.randn(6, 2, 4)
    graph = trace(module, (x,), dynamic=()).graph
    exposed, _ = expose_inputs(graph)
    assert exposed is not graph
    torch.testing.assert_close(exposed(x), graph(x))
    assert hessians(graph, (x,))["rnn.weight_hh_l0"].samples == 12


def test_a_graph_without_recurrent_layers_is_returned_itself():
    graph = trace(nn.Linear(3, 2), (torch.randn(2, 3),)).graph
    assert expose_inputs(graph) == (graph, {})
