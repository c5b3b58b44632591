from dataclasses import dataclass

import pytest
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.capture import capture
from attar._src.model.interface import call_by_name, flat_entry, flatten_outputs, forward_parameters
from attar._src.model.trace import deploy_graph, trace


@dataclass
class Output:
    logits: object = None
    loss: object = None
    hidden: object = None


class Encoder(nn.Module):
    """Takes optional arguments as large models do, and gives a dataclass."""

    def __init__(self):
        super().__init__()
        self.words, self.kinds, self.head = nn.Embedding(9, 4), nn.Embedding(3, 4), nn.Linear(4, 2)

    def forward(self, ids, mask=None, kinds=None, *, scale=None):
        h = self.words(ids)
        if kinds is not None:
            h = h + self.kinds(kinds)
        if mask is not None:
            h = h * mask.unsqueeze(-1)
        if scale is not None:
            h = h * scale.unsqueeze(-1)
        return Output(logits=self.head(h), hidden=(h, None))

    def embed(self, ids, kinds):
        return {"embedding": self.words(ids) - self.kinds(kinds)}


IDS, KINDS, MASK = torch.arange(6).reshape(2, 3), torch.ones(2, 3, dtype=torch.int64), torch.rand(2, 3)


def test_parameters_say_what_is_required():
    class Many(nn.Module):
        def forward(self, x, *more, mask=None, scale, **rest):
            return x

    assert forward_parameters(Many()) == {"x": True, "*more": False, "mask": False, "scale": True}
    assert forward_parameters(Encoder(), "embed") == {"ids": True, "kinds": True}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "given", [{"ids": IDS}, {"ids": IDS, "kinds": KINDS}, {"ids": IDS, "mask": MASK, "scale": MASK + 1}]
)
def test_skipped_arguments_keep_their_defaults(train, given):
    net = Encoder()
    captured = capture(net, tuple(given.values()), names=tuple(given), train=train)
    assert (captured.names, captured.outputs) == (tuple(given), ("logits", "hidden.0"))
    assert [node.name for node in captured.evaluation.graph.find_nodes(op="placeholder")] == list(given)
    wanted = net(**given)
    for program in (captured.training, captured.evaluation):
        found = program(*given.values())
        torch.testing.assert_close(found["logits"], wanted.logits)
        torch.testing.assert_close(found["hidden.0"], wanted.hidden[0])
    assert "forward" not in vars(net)
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_ports_are_called_by_arguments_and_fields():
    traced = trace(Encoder(), (IDS, KINDS), names=("ids", "kinds"))
    assert [port.name for port in traced.inputs] == ["ids", "kinds"]
    assert [port.name for port in traced.outputs] == ["logits", "hidden.0"]


def test_another_method_is_captured_the_same_way():
    net = Encoder()
    captured = capture(net, (IDS, KINDS), method="embed")
    assert captured.names == ("ids", "kinds")
    torch.testing.assert_close(captured.evaluation(IDS, KINDS), net.embed(IDS, KINDS))
    assert [port.name for port in deploy_graph(net, captured).outputs] == ["embedding"]


def test_hooks_of_the_module_see_what_they_always_see():
    net, seen = Encoder(), []

    def before(module, args, kwargs):
        seen.append((len(args), *sorted(kwargs)))
        return args, {**kwargs, "mask": torch.ones(2, 3)}

    def after(module, args, output):
        return Output(logits=output.logits * 2, hidden=output.hidden)

    net.register_forward_pre_hook(before, with_kwargs=True)
    net.register_forward_hook(after)
    captured = capture(net, (IDS, KINDS), names=("ids", "kinds"), dynamic=())
    assert set(seen) == {(1, "kinds")}
    torch.testing.assert_close(captured.evaluation(IDS, KINDS)["logits"], net(IDS, kinds=KINDS).logits)
    assert (len(net._forward_pre_hooks), len(net._forward_hooks)) == (1, 1)


def test_a_module_is_as_it_was_whatever_happens():
    net = Encoder()
    own = net.forward
    net.forward = own  # as wrappers of others do

    def stopped():
        with flat_entry(net, ("ids",)):
            assert net.forward is not own
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert net.forward is own
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_positional_arguments_of_any_number():
    class Sum(nn.Module):
        def forward(self, x, *more):
            return x + sum(more)

    x = torch.ones(2, 3)
    captured = capture(Sum(), (x, x, x))
    assert captured.names == ("x", "more_0", "more_1")
    assert torch.equal(captured.evaluation(x, x, x), x * 3)
    assert torch.equal(call_by_name(Sum(), captured.names, (x, x, x)), x * 3)

    class Only(nn.Module):
        def forward(self, x, /, y=None):
            return x - y

    assert torch.equal(call_by_name(Only(), ("x", "y"), (x, x)), x * 0)
    assert torch.equal(capture(Only(), (x, x)).evaluation(x, x), x * 0)


def test_an_output_that_no_file_can_hold_is_named():
    class Cached(nn.Module):
        def forward(self, x):
            return {"logits": x * 2, "cache": object()}

    with pytest.raises(ModelError, match="Cached cannot be traced: output 'cache' is object; return tensors or None"):
        capture(Cached(), (torch.ones(2, 3),))


def test_single_tensors_and_tuples_stay_what_they_are():
    class Two(nn.Module):
        def forward(self, x):
            return x.relu(), [-x, None]

    captured = capture(Two(), (torch.ones(2, 3),))
    assert captured.outputs == ()
    found = captured.evaluation(torch.ones(2, 3))
    assert isinstance(found, tuple)
    assert list(flatten_outputs(found)) == ["0", "1"]
    assert [port.name for port in trace(Two(), (torch.ones(2, 3),)).outputs] == ["relu", "neg"]
