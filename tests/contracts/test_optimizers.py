"""What every optimizer owes."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.train.optimizer import OPTIMIZERS, OptimizerChoice, Sgd
from attar._src.train.store import flatten_state, unflatten_state

CHOICE = TypeAdapter(OptimizerChoice)


@pytest.fixture(params=list(OPTIMIZERS))
def spec(request):
    return OPTIMIZERS[request.param]()


def parameters():
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 4, generator=draw)), nn.Parameter(torch.randn(4, generator=draw))]


def walk(optimizer, both, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p**2).sum() for p in both).backward()
        optimizer.step()


def test_it_is_chosen_by_name_and_its_json_is_itself(spec):
    assert CHOICE.validate_python(spec.name) == spec
    assert CHOICE.validate_python(CHOICE.dump_python(spec, mode="json")) == spec


def test_it_makes_a_convex_loss_smaller(spec):
    both = parameters()
    before = sum(float((p.detach() ** 2).sum()) for p in both)
    walk(spec.model_copy(update={"lr": 0.01}).build(both[:1], both[1:]), both, 20)
    assert sum(float((p.detach() ** 2).sum()) for p in both) < before


def test_weight_decay_is_of_the_groups_marked(spec):
    both = parameters()
    before = [p.detach().clone() for p in both]
    optimizer = spec.model_copy(update={"weight_decay": 0.1}).build(both[:1], both[1:])
    for parameter in both:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (both[0].detach().abs() < before[0].abs()).all()
    assert torch.equal(both[1], before[1])


def test_what_it_remembers_goes_through_a_checkpoint_to_the_byte(spec):
    whole, halves = parameters(), parameters()
    walk(spec.build(whole[:1], whole[1:]), whole, 6)
    optimizer = spec.build(halves[:1], halves[1:])
    walk(optimizer, halves, 3)
    tensors = {}
    facts = flatten_state(optimizer.state_dict(), "optimizer", tensors)
    again = spec.build(halves[:1], halves[1:])
    again.load_state_dict(unflatten_state(facts, {name: tensor.clone() for name, tensor in tensors.items()}))
    walk(again, halves, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_sgd_without_momentum_is_plain():
    both = parameters()
    expected = [p.detach() * (1 - 2 * 0.1) for p in both]
    walk(Sgd(momentum=0.0, weight_decay=0.0).build(both[:1], both[1:]), both, 1)
    assert all(torch.allclose(p, e) for p, e in zip(both, expected, strict=True))


def test_a_users_own_by_file_and_as_an_object(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\ndef slow(groups, lr, power=1):\n    return torch.optim.SGD(groups, lr=lr / 10**power)\n"
    )
    own = CHOICE.validate_python({"name": f"{path}:slow", "lr": 0.5, "arguments": {"power": 2}, "weight_decay": 0.1})
    both = parameters()
    made = own.build(both[:1], both[1:])
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(0.005, 0.1), (0.005, 0.0)]
    assert CHOICE.validate_python(CHOICE.dump_python(own, mode="json")) == own
    python = CHOICE.validate_python(torch.optim.RMSprop)
    assert isinstance(python.build(parameters(), []), torch.optim.RMSprop)
    written = CHOICE.dump_python(python, mode="json")
    assert isinstance(CHOICE.validate_python(written).build(parameters(), []), torch.optim.RMSprop)


def test_a_users_own_that_does_not_fit():
    with pytest.raises(SpecError, match=r"torch\.optim:RMSprop does not take .*beta"):
        CHOICE.validate_python({"name": "torch.optim:RMSprop", "arguments": {"beta": 1}}).build(parameters(), [])
    with pytest.raises(SpecError, match=r"builtins:dict returned a dict, not a torch\.optim\.Optimizer"):
        CHOICE.validate_python(lambda groups, lr: {}).model_copy(update={"name": "builtins:dict"}).make([])
