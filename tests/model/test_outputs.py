from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import attar
from attar._src.artifact.writer import pack
from attar._src.core.errors import ModelError
from attar._src.core.fields import main_output_name
from attar._src.model.interface import flatten_outputs, main_output, plain_outputs
from attar._src.model.trace import trace
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import CompressedModel, FileInfo

A, B, C = (torch.full((2,), float(value)) for value in range(3))
Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Output:
    loss: object = None
    logits: object = None


class ModelOutput(OrderedDict):
    """A mapping whose fields are attributes too."""


@pytest.mark.parametrize(
    ("output", "plain"),
    [
        (A, A),
        ((A, B), (A, B)),
        ([A, (B, None), [C]], (A, B, C)),
        ((A,), (A,)),
        ({"a": A, "b": None}, {"a": A}),
        (Output(logits=(A, {"b": B})), {"logits.0": A, "logits.1.b": B}),
        (Pair(A, [B]), {"left": A, "right.0": B}),
        ((A, {"b": B}), {"0": A, "1.b": B}),
        (ModelOutput(logits=A), {"logits": A}),
        ({3: A}, {"3": A}),
        (torch.max(torch.ones(2, 3), 1), tuple(torch.max(torch.ones(2, 3), 1))),
        ({"a": [A, "text"], "b": 3}, {"a.0": A}),
        ((A, 2.5, None), (A,)),
    ],
)
def test_outputs_are_flattened_with_names(output, plain):
    found = plain_outputs(output)
    assert type(found) is (torch.Tensor if isinstance(plain, torch.Tensor) else type(plain))
    wanted, given = flatten_outputs(plain), flatten_outputs(found)
    assert list(given) == list(wanted)
    assert all(torch.equal(given[name], wanted[name]) for name in wanted)
    assert list(map(id, flatten_outputs(output).values())) == list(map(id, given.values()))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (3, "the output is int without tensors"),
        ({"a": {"b": A}, "a.b": B}, r"two outputs are called 'a\.b'"),
        ({"a": None}, "the output is dict without tensors"),
        ([], "the output is list without tensors"),
    ],
)
def test_what_is_no_output_is_named(output, message):
    with pytest.raises(ModelError, match=message):
        plain_outputs(output)


def test_the_main_output_is_logits_then_the_first_floating_one():
    whole = torch.ones(2, dtype=torch.int64)
    assert main_output({"hidden": A, "logits": B}) is B
    assert main_output((whole, A, B)) is A
    assert main_output(Output(loss=A)) is A
    assert main_output(whole) is whole
    assert main_output_name({"a": False, "b": False}) == "a"


def assert_file_gives(traced, x, wanted):
    session = Session(pack(CompressedModel.of(traced).contents(FileInfo()), coder="raw"))
    found = session.run({"x": x.numpy()})
    assert list(found) == [port.name for port in traced.outputs]
    for array, tensor in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(array), tensor.detach(), atol=1e-5, rtol=1e-5)


def _is_read(node):
    return any(user.op != "output" for user in node.users)


class Crowded(nn.Module):
    """Names of fields that are those of inputs, weights, inner values and each other's values."""

    def __init__(self):
        super().__init__()
        self.weight, self.linear = nn.Parameter(torch.eye(3)), nn.Linear(3, 3)

    def forward(self, x):
        first = self.linear(x)
        second = self.linear(first.relu())
        return {
            "x": x,
            "linear_1": first,
            "linear": second,
            "again": second,
            "relu": second.exp(),
            "weight": first @ self.weight,
        }


def test_names_of_fields_are_kept_where_values_have_them():
    torch.manual_seed(0)
    net = Crowded()
    traced = trace(net, (torch.ones(2, 3),))
    names = [port.name for port in traced.outputs]
    assert names == ["x_out", "linear_1", "linear", "again", "relu", "weight_out"]
    made = [value for node in traced.model.graph.node for value in node.output]
    assert len(made) == len(set(made))
    # Sites are found by the names of values that are read: both graphs go on calling them alike.
    calls = {node.name for node in traced.graph.graph.nodes if node.op == "call_function" and _is_read(node)}
    assert calls <= traced.values
    x = torch.randn(5, 3)
    torch.testing.assert_close(list(traced.graph(x).values()), list(net(x).values()))
    assert_file_gives(traced, x, list(net(x).values()))
    assert set(traced.origins) <= {node.name for node in traced.graph.graph.nodes}


def test_outputs_by_position_that_are_inputs_or_come_twice_are_numbered():
    class Twice(nn.Module):
        def forward(self, x):
            y = x * 2
            return x, y, y

    traced = trace(Twice(), (torch.ones(2, 3),))
    assert [port.name for port in traced.outputs] == ["x_0", "mul", "mul_2"]
    x = torch.randn(5, 3)
    assert_file_gives(traced, x, [x, x * 2, x * 2])


class Hidden(nn.Module):
    """Gives a value that another layer reads in integers, under a word of Python and a path."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.inner(x).relu()
        return h, self.head(h)


class HiddenByName(Hidden):
    def forward(self, x):
        h, y = super().forward(x)
        return {"class": (h,), "value": y}


def test_a_named_output_is_not_rounded_where_its_reader_is(tmp_path):
    torch.manual_seed(0)
    plain, named, x = Hidden(), HiddenByName(), torch.randn(64, 6)
    named.load_state_dict(plain.state_dict())
    found = []
    for number, module in enumerate((plain, named)):
        attar.quantize(module, x, bits=8, activations=8).save(tmp_path / f"{number}.attar")
        session = attar.Session(tmp_path / f"{number}.attar")
        assert [(layer.name, layer.integer) for layer in session.layers] == [("inner", True), ("head", True)]
        found.append(session.run({"x": x.numpy()}))
    assert list(found[1]) == ["class.0", "value"]
    for one, other in zip(*(each.values() for each in found), strict=True):
        assert (one == other).all()
