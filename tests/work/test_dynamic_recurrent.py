"""LSTM and GRU that read rounded sequences and states: PyTorch's own where nothing is rounded."""

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

from attar._src.model.recurrent import packed_op  # noqa: F401 its operators
from attar._src.work.dynamic_recurrent import DynamicRecurrent, gru_step, lstm_step
from attar._src.work.dynamic_rounding import DynamicRound

STEPS = {nn.LSTM: lstm_step, nn.GRU: gru_step}


def made(kind, *, packed, rounds):
    layer = DynamicRecurrent(STEPS[kind], packed=packed)
    if not rounds:
        layer.round = nn.Identity()
    return layer


def arguments(net, starts, *, packed):
    states = tuple(starts) if isinstance(net, nn.LSTM) else starts[0]
    rest = (states, net._flat_weights, net.bias, net.num_layers, 0.0, False, net.bidirectional)
    return rest if packed else (*rest, net.batch_first)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("lengths", [None, [7, 5, 2], [6, 6, 1]])
def test_without_rounding_it_is_the_layer(kind, bidirectional, biases, lengths):
    torch.manual_seed(0)
    net = kind(5, 4, 2, bias=biases, bidirectional=bidirectional, batch_first=lengths is None).eval()
    starts = [torch.randn(4 if bidirectional else 2, 3, 4) for _ in range(2)]
    x = torch.randn(3, 7, 5) if lengths is None else torch.randn(7, 3, 5)
    states = tuple(starts) if kind is nn.LSTM else starts[0]
    layer, rest = made(kind, packed=lengths is not None, rounds=False), arguments(net, starts, packed=bool(lengths))
    with torch.no_grad():
        if lengths is None:
            want, finals = net(x, states)
            got = layer(x, *rest)
        else:
            want, finals = net(rnn.pack_padded_sequence(x, lengths), states)
            want, _ = rnn.pad_packed_sequence(want, total_length=7)
            got = layer(x, torch.tensor(lengths), *rest)
    for one, other in zip(got, (want, *(finals if kind is nn.LSTM else [finals])), strict=True):
        torch.testing.assert_close(one, other)


def test_one_step_by_hand():
    net = nn.GRU(2, 1, bias=False)
    with torch.no_grad():
        for weight, values in zip(net.parameters(), ([[0, 0], [0, 0], [1, -1]], [[0], [0], [1]]), strict=True):
            weight.copy_(torch.tensor(values))
    x, h = torch.tensor([[[-1.0, 3.0]]]), torch.tensor([[[0.5]]])
    _, end = made(nn.GRU, packed=False, rounds=True)(x, *arguments(net, [h], packed=False))
    # The grid of (-1, 3) has the scale 4 / 255 and the code 64 for zero; that of 0.5 alone has 0.5 as its largest code.
    scale = 4 / 255
    n = torch.tanh(torch.tensor(scale * (0 - 64) - scale * (255 - 64) + 0.5 * 0.5))
    assert end.item() == pytest.approx((0.5 * n + 0.5 * 0.5).item(), abs=1e-6)


@pytest.mark.parametrize("kind", STEPS)
def test_the_sequence_is_rounded_once_and_the_state_at_each_step(kind):
    class Counted(DynamicRound):
        shapes = []

        def forward(self, x):
            self.shapes.append(tuple(x.shape))
            return super().forward(x)

    net = kind(5, 4, 2, bidirectional=True)
    layer = made(kind, packed=False, rounds=True)
    layer.round = Counted()
    layer(torch.randn(7, 3, 5), *arguments(net, [torch.zeros(4, 3, 4)] * 2, packed=False))
    assert Counted.shapes == [(7, 3, 5), *[(3, 4)] * 14, (7, 3, 8), *[(3, 4)] * 14]
    Counted.shapes.clear()


def test_what_lies_behind_an_end_takes_no_part():
    net = nn.LSTM(5, 4)
    layer = made(nn.LSTM, packed=True, rounds=True)
    x, rest = torch.randn(7, 3, 5), arguments(net, [torch.zeros(1, 3, 4)] * 2, packed=True)
    lengths = torch.tensor([7, 5, 2])
    before = layer(x, lengths, *rest)
    x[5:, 1], x[2:, 2] = 1e4, float("nan")
    for one, other in zip(layer(x, lengths, *rest), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
