import pytest
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.trace import trace


class Branchy(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.table = nn.Buffer(torch.arange(32.0).reshape(8, 4))

    def forward(self, a, b):
        return self.inner(a) + self.inner(b) + self.table[0]


def values(model):
    return {value for node in model.graph.node for value in node.output}


def test_graph_computes_what_the_module_computes_and_names_agree_with_onnx():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    traced = trace(net, (torch.randn(2, 3, 8, 8),))
    assert net.training
    assert net[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    x = torch.randn(7, 3, 8, 8)
    assert torch.allclose(traced.graph(x), net.eval()(x), atol=1e-5)
    calls = [node for node in traced.graph.graph.nodes if node.op == "call_function"]
    # The size of an axis is no value of the graph: a reshape has -1 for it.
    assert {node.name for node in calls if isinstance(node.meta["val"], torch.Tensor)} <= values(traced.model)
    assert traced.parameters == sum(p.numel() for p in net.parameters())
    assert traced.inputs[0].shape == ("batch", 3, 8, 8)
    assert traced.outputs[0].shape == ("batch", 5)


def test_no_weight_stays_in_the_graph():
    traced = trace(nn.Linear(64, 64), (torch.randn(2, 64),))
    assert len(traced.model.SerializeToString()) < 1000
    assert {binding.to for binding in traced.bindings} == {"weight", "bias"}


def test_an_input_named_like_a_builtin_has_one_name_everywhere():
    traced = trace(nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 4),))
    placeholder = next(node.name for node in traced.graph.graph.nodes if node.op == "placeholder")
    assert [port.name for port in traced.inputs] == [placeholder]
    assert [value.name for value in traced.model.graph.input] == [placeholder]
    assert placeholder in {name for node in traced.model.graph.node for name in node.input}


def test_several_inputs_and_a_buffer():
    traced = trace(Twice(), (torch.randn(2, 4), torch.randn(2, 4)))
    assert len(traced.inputs) == 2
    assert {port.shape for port in traced.inputs} == {("batch", 4)}


def test_tied_weights_are_one_tensor_and_an_alias():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.embed(x))

    traced = trace(Tied(), (torch.zeros(2, 3, dtype=torch.int64),))
    assert len(traced.state()) == 1
    assert len(traced.aliases) == 1
    assert {*traced.aliases, *traced.aliases.values()} == {"embed.weight", "head.weight"}
    assert traced.parameters == 66


def test_a_dynamic_sequence_length():
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    traced = trace(net, (torch.randn(2, 5, 8),), dynamic=(0, 1))
    assert traced.inputs[0].shape == ("batch", "axis1", 8)
    x = torch.randn(3, 9, 8)
    assert torch.allclose(traced.graph(x), net(x), atol=1e-5)


def test_what_cannot_be_traced_is_named():
    with pytest.raises(ModelError, match="Branchy cannot be traced"):
        trace(Branchy(), (torch.randn(2, 3),))


def test_a_batch_that_the_code_fixes_is_explained():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(len(x), -1)

    with pytest.raises(ModelError, match=r"write x\.shape\[0\], or fix"):
        trace(Fixed(), (torch.randn(2, 3),))
    assert trace(Fixed(), (torch.randn(2, 3),), dynamic=()).inputs[0].shape == (2, 3)


def test_an_operator_onnx_lacks_is_named():
    class Special(nn.Module):
        def forward(self, x):
            return torch.special.airy_ai(x)

    with pytest.raises(ModelError, match="airy_ai"):
        trace(Special(), (torch.randn(2, 3),))


def test_two_inputs_whose_lengths_vary_apart():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x, y):
            return self.attend(x, y, y, need_weights=False)[0]

    net = Cross().eval()
    traced = trace(net, (torch.randn(2, 3, 8), torch.randn(2, 5, 8)), dynamic=(0, 1))
    assert [port.shape for port in traced.inputs] == [("batch", "axis1", 8), ("batch", "y_axis1", 8)]
    x, y = torch.randn(4, 6, 8), torch.randn(4, 9, 8)
    assert torch.allclose(traced.graph(x, y), net(x, y), atol=1e-5)


def test_an_output_no_file_can_hold_is_named():
    class Double(nn.Module):
        def forward(self, x):
            return x.double()

    with pytest.raises(ModelError, match=r"output .* is DOUBLE; use one of"):
        trace(Double(), (torch.randn(2, 3),))


def test_modules_without_values_are_refused():
    with pytest.raises(ModelError, match=r"weight is on the meta device and has no values: load the weights before"):
        trace(nn.Linear(3, 3, device="meta"), (torch.randn(2, 3),))


def test_other_floating_types_are_computed_in_float32():
    net = nn.Linear(3, 3).double()
    assert {value.dtype for value in trace(net, (torch.randn(2, 3),)).state().values()} == {torch.float32}
    assert net.weight.dtype is torch.float64
    with pytest.raises(ModelError, match=r"input 'input_1' is DOUBLE; use one of \['f32'"):
        trace(net, (torch.randn(2, 3).double(),))
