"""Outputs keep the names and the order that the module gives them, whatever holds them; what is no tensor is said."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import attar

X = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Output:
    loss: object = None
    logits: object = None
    hidden: object = None


class Cache:
    """Holds tensors in a class of its own, as the caches of decoders do."""

    def __init__(self, keys):
        self.keys = keys


class Registered(Cache):
    pass


_pytree.register_pytree_node(Registered, lambda each: ([each.keys], None), lambda keys, _: Registered(*keys))


class Heads(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.b, self.a, self.c, self.pack = nn.Linear(10, 32), nn.Linear(32, 3), nn.Linear(32, 1), pack

    def forward(self, x):
        h = self.b(x).relu()
        return self.pack(x, self.a(h), self.c(h), self)


@pytest.mark.parametrize(
    ("pack", "names"),
    [
        (lambda x, a, c, m: {"class": a, "value": c}, ["class", "value"]),
        (lambda x, a, c, m: {"class": a, "value": c, "loss": None}, ["class", "value"]),
        (lambda x, a, c, m: {"boxes": {"xy": a, "wh": [c, c]}, 7: a}, ["boxes.xy", "boxes.wh.0", "boxes.wh.1", "7"]),
        (lambda x, a, c, m: Output(logits=a, hidden=(c, a)), ["logits", "hidden.0", "hidden.1"]),
        (lambda x, a, c, m: Pair(a, {"deep": c}), ["left", "right.deep"]),
        (lambda x, a, c, m: {"logits": a, "cache": Registered(c)}, ["logits", "cache.0"]),
        (lambda x, a, c, m: {"same": a, "again": a, "input": x}, ["same", "again", "input"]),
        (lambda x, a, c, m: {"logits": a, "weight": m.a.weight, "bias": m.c.bias}, ["logits", "weight", "bias"]),
        (lambda x, a, c, m: (a, m.c.bias, x, a), ["linear_1", "c.bias_1", "x_2", "linear_1_3"]),
    ],
)
def test_names_of_outputs(pack, names, tmp_path):
    torch.manual_seed(0)
    net = Heads(pack).eval()
    attar.quantize(net, X, bits=8, activations=8).save(tmp_path / "m.attar")
    found = attar.Session(tmp_path / "m.attar").run({"x": X.numpy()})
    assert list(found) == names
    with torch.no_grad():
        output = net(X)
    leaves = _pytree.tree_leaves(vars(output) if isinstance(output, Output) else output)
    wanted = [each.detach() for each in leaves if each is not None]
    for array, tensor in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(array), tensor, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (Cache, "returns Cache as 'extra', which is left out: configure the module with use_cache=False"),
        (lambda c: 3, "returns int as 'extra', which is left out: a file returns tensors only"),
        (lambda c: "text", "returns str as 'extra'"),
    ],
)
def test_what_is_no_tensor_is_left_out_with_a_warning(extra, sentence, tmp_path):
    net = Heads(lambda x, a, c, m: {"logits": a, "extra": extra(c)})
    quantized = attar.quantize(net, X, bits=8)
    with pytest.warns(UserWarning, match=sentence):
        report = quantized.save(tmp_path / "m.attar")
    assert any(sentence in each for each in report["warnings"])
    assert list(attar.Session(tmp_path / "m.attar").run({"x": X.numpy()})) == ["logits"]
