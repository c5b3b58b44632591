"""The meaning of a dynamic LSTM or GRU of a file, step by step in numpy; weights and gates in float32."""

import numpy as np
from onnx import helper


def recur(item, values, rounded):
    """Its outputs. ``rounded`` returns an array on its grid of the moment."""
    x, w, r, b, lens, *starts = [values[name] for name in item.input] + [None] * (7 - len(item.input))
    attributes = {each.name: helper.get_attribute_value(each) for each in item.attribute}
    time, batch, _ = x.shape
    directions, hidden = len(w), attributes["hidden_size"]
    step, count = (_lstm, 2) if item.op_type == "LSTM" else (_gru, 1)
    lens = np.full(batch, time) if lens is None else lens
    x = rounded(np.where((np.arange(time)[:, None] < lens)[..., None], x, np.float32(0)))
    made = []
    for place in range(directions):
        bias = np.zeros((2, w.shape[1]), np.float32) if b is None else b[place].reshape(2, -1)
        states = [np.zeros((batch, hidden), np.float32) if s is None else s[place] for s in starts[:count]]
        backward = place == 1 or attributes.get("direction") == b"reverse"
        made.append(_direction(x, lens, backward, w[place], r[place], bias, states, step, rounded))
    sequences, *finals = zip(*made, strict=True)
    return [np.stack(sequences, 1), *(np.stack(final) for final in finals)][: len(item.output)]


def _direction(x, lens, backward, w, r, bias, states, step, rounded):
    hidden = states[0].shape[1]
    order = [np.arange(len(x)) for _ in lens]
    for one, end in zip(order, lens, strict=True):
        one[:end] = one[:end][::-1] if backward else one[:end]
    sequence, finals = np.zeros((*x.shape[:2], hidden), np.float32), [state.copy() for state in states]
    for t in range(len(x)):
        now = np.stack([x[one[t], n] for n, one in enumerate(order)])
        live = (t < np.array(lens))[:, None]
        states = step(now @ w.T + bias[0], rounded(states[0]) @ r.T + bias[1], states)
        finals = [np.where(live, new, old) for new, old in zip(states, finals, strict=True)]
        states[0] = np.where(live, states[0], np.float32(0))
        for n, one in enumerate(order):
            sequence[one[t], n] = states[0][n]
    return sequence, *finals


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _lstm(x, h, states):
    i, o, f, c = np.split(x + h, 4, axis=1)
    cell = _sigmoid(f) * states[1] + _sigmoid(i) * np.tanh(c)
    return [_sigmoid(o) * np.tanh(cell), cell]


def _gru(x, h, states):
    (xz, xr, xn), (hz, hr, hn) = np.split(x, 3, axis=1), np.split(h, 3, axis=1)
    z, n = _sigmoid(xz + hz), np.tanh(xn + _sigmoid(xr + hr) * hn)
    return [(1 - z) * n + z * states[0]]
