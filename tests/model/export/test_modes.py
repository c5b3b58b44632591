import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar._src.core.errors import SpecError
from attar._src.model.capture import capture
from attar._src.model.interface import main_output
from attar._src.model.trace import deploy_graph
from attar._src.work.learner import Learner
from attar._src.work.objective import Objective

X = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.aux, self.b, self.drop = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3), nn.Dropout(0.5)


class Auxiliary(Net):
    """Has a head in training alone, before the main one, with an operator in place."""

    def forward(self, x):
        h = torch.relu(self.a(x))
        if self.training:
            aux = self.aux(self.drop(h)).relu_()
            return self.b(h), aux
        return self.b(h)


class NamedAuxiliary(Auxiliary):
    def forward(self, x):
        found = super().forward(x)
        return {"aux": found[1], "logits": found[0]} if self.training else {"logits": found}


class DropPath(nn.Module):
    def forward(self, x):
        return x * x.new_empty(x.shape[0], 1).bernoulli_(0.5) / 0.5 if self.training else x


class Residual(Net):
    """Stochastic depth, as timm and torchvision write it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.paths = nn.ModuleList(DropPath() for _ in range(3))

    def forward(self, x):
        for block, path in zip(self.blocks, self.paths, strict=True):
            x = x + path(torch.relu(block(x)))
        return self.b(torch.relu(self.a(x)))


class Noisy(Net):
    def forward(self, x):
        if self.training:
            x = x + torch.randn_like(x)
        return self.b(torch.relu(self.a(x)))


class Probabilities(Net):
    """Returns logits in training, as many classifiers do."""

    def forward(self, x):
        y = self.b(torch.relu(self.a(x)))
        return y if self.training else y.softmax(-1)


@pytest.mark.parametrize("made", [Auxiliary, NamedAuxiliary, Residual, Noisy, Probabilities])
def test_training_keeps_what_the_module_does_in_training_alone(made):
    net = made()
    captured = capture(net, (X,))
    assert not captured.left_out
    torch.manual_seed(1)
    wanted = main_output(net.train()(X))
    torch.manual_seed(1)
    torch.testing.assert_close(main_output(captured.training(X)), wanted)
    torch.testing.assert_close(main_output(captured.evaluation(X)), main_output(net.eval()(X)))
    traced = deploy_graph(net, captured)
    torch.testing.assert_close(main_output(traced.graph(X)), main_output(net(X)))
    # Every place where activations are rounded is in the training program too.
    in_training = {node.name for node in captured.training.graph.nodes}
    places = Learner(net, captured, traced).places()
    assert places
    assert all(in_training >= set(place.sources) for place in places)


def test_values_of_both_programs_with_one_name_are_the_same():
    net = Auxiliary()
    captured = capture(net, (X,))
    heads = {
        program: {str(node.args[1].target): node.name for node in graph.graph.nodes if node.name.startswith("linear")}
        for program, graph in (("training", captured.training), ("evaluation", captured.evaluation))
    }
    assert heads["evaluation"] == {name: heads["training"][name] for name in ("a.weight", "b.weight")}
    assert heads["training"]["aux.weight"] not in heads["evaluation"].values()


def test_another_main_output_in_training_is_refused_with_both_lines():
    class Swapped(Auxiliary):
        def forward(self, x):
            found = super().forward(x)
            return found[::-1] if self.training else found

    with pytest.raises(SpecError, match=r"(?s)linear in 'b' \(test_modes.*relu_.*return the same one first"):
        capture(Swapped(), (X,))


class Losses(Net):
    def forward(self, x):
        y = self.b(self.drop(self.a(x)))
        return y.square().mean() if self.training else y


class Rebuilt(Net):
    """Evaluation computes its layer of weights that training uses apart."""

    def forward(self, x):
        x = self.drop(x)
        if self.training:
            return self.b(self.a(x) + x.repeat(1, 2))
        return self.b(nn.functional.linear(x, self.a.weight + torch.eye(4).repeat(2, 1), self.a.bias))


class Demanding(Net):
    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("give targets in training")
        return self.b(self.drop(self.a(x)))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (Losses, r"training does not return linear in 'b' \(test_modes"),
        (Rebuilt, r"training does not compute linear \(test_modes"),
        (Demanding, "Demanding cannot be traced .*give targets in training"),
    ],
)
def test_a_module_that_trains_otherwise_is_trained_by_its_evaluation_program(made, reason):
    net = made()
    captured = capture(net, (X,))
    assert torch.equal(captured.evaluation(X), net.eval()(X))
    assert captured.training(X).shape == (4, 3)
    assert not torch.equal(captured.training(X), captured.training(X))
    assert re.search(reason, captured.left_out)


class Deep(Objective):
    """The loss of every output: in training those of auxiliary heads too."""

    def forward(self, sources):
        return sum(nn.functional.cross_entropy(each, sources.batch.targets) for each in sources.every)


def test_an_auxiliary_head_is_trained_and_not_deployed(tmp_path):
    torch.manual_seed(0)
    net, split = Auxiliary(), (torch.randn(40, 4), torch.randint(0, 3, (40,)))
    loader = DataLoader(TensorDataset(*split), batch_size=20)
    stage = {
        "stage": "finetune",
        "objective": [Deep],
        "epochs": 1,
        "optimizer": {"name": "sgd", "lr": 0.1},
        "batch": 20,
    }
    recipe = attar.Recipe(
        data=dict.fromkeys(("train", "validation", "test"), loader), models={"a": {"source": net, "stages": [stage]}}
    )
    results = attar.run(recipe, tmp_path / "run")
    assert [port.name for port in attar.Session(results.files["a"]).outputs] == ["linear_1"]
    # The loss had both outputs in training, and its gradient reached the head that is not deployed.
    captured = capture(net, (X,))
    sum(each.sum() for each in captured.training(X)).backward()
    assert net.aux.weight.grad.any()
