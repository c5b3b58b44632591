"""The mode of a batch-norm or dropout in training is the module's own choice; kept in the programs and in training."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar._src.model.capture import capture
from attar._src.model.operators import argument, is_batch_norm

IMAGES = torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.c, self.n, self.o = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.b.running_mean.fill_(7.0)
        self.b.running_var.fill_(2.0)

    def forward(self, x):
        return self.o(self.n(functional.relu(self.c(self.b(x)))).mean((2, 3)))


class Overridden(Net):
    """``train()`` leaves the first norm in evaluation mode, as ``norm_eval`` of mmdetection does."""

    def train(self, mode=True):
        super().train(mode)
        self.b.eval()
        return self


class InForward(Net):
    def forward(self, x):
        self.b.eval()
        return super().forward(x)


class Functional(Net):
    def forward(self, x):
        b = self.b
        x = functional.batch_norm(x, b.running_mean, b.running_var, b.weight, b.bias, training=False)
        return self.o(self.n(functional.relu(self.c(x))).mean((2, 3)))


@pytest.mark.parametrize("made", [Overridden, InForward, Functional])
def test_frozen_statistics_do_not_move(made, tmp_path):
    torch.manual_seed(0)
    net = made()
    labels = torch.randint(0, 4, (60,))
    loader = DataLoader(TensorDataset(IMAGES, labels), batch_size=20)
    data = dict.fromkeys(("train", "validation", "test"), loader)
    stage = {"stage": "train", "epochs": 1, "norm_batches": 2}
    results = attar.run(attar.Recipe(data=data, models={"a": {"source": net, "stages": [stage]}}), tmp_path / "run")
    stored = attar.open_artifact(results.files["a"])
    norms = {name: stored.tensor(name).dense() for name in stored.names if "running" in name}
    assert (norms["b.running_mean"] == 7.0).all()
    assert (norms["b.running_var"] == 2.0).all()
    assert (norms["n.running_mean"] != 0.0).any()


@pytest.mark.parametrize("made", [Net, Overridden, InForward, Functional])
def test_both_programs_have_the_modes_that_the_module_has(made):
    net, x = made(), IMAGES[:2]
    captured = capture(net, (x,))
    assert not captured.left_out
    modes = [argument(node, "training") for node in captured.training.graph.nodes if is_batch_norm(node)]
    assert modes == [made is Net, True]
    assert not any(argument(node, "training") for node in captured.evaluation.graph.nodes if is_batch_norm(node))
    with torch.no_grad():
        torch.testing.assert_close(captured.training(x), net.train()(x))
        torch.testing.assert_close(captured.evaluation(x), net.eval()(x))


def test_dropout_that_the_module_never_turns_on_stays_off_in_training():
    class Dropouts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            x = functional.dropout(self.layer(x), 0.5, training=False)
            return functional.dropout(x, 0.1, training=self.training)

    captured = capture(Dropouts(), (torch.randn(2, 64),))
    calls = [node.args[1:] for node in captured.training.graph.nodes if "dropout" in node.name]
    assert calls == [(0.5, False), (0.1, True)]


class Frozen(Net):
    """A norm made of buffers, as torchvision's FrozenBatchNorm2d: no operator with modes at all."""

    def forward(self, x):
        b = self.b
        scale = (b.weight / (b.running_var + b.eps).sqrt()).reshape(1, -1, 1, 1)
        x = (x - b.running_mean.reshape(1, -1, 1, 1)) * scale + b.bias.reshape(1, -1, 1, 1)
        return self.o(self.n(functional.relu(self.c(x))).mean((2, 3)))


class WrittenOut(Net):
    """A norm written out, whose buffers follow the batches in training."""

    def forward(self, x):
        b, mean, var = self.b, self.b.running_mean, self.b.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.move(mean.detach(), var.detach())
        x = (x - mean.reshape(1, -1, 1, 1)) * (b.weight / (var + b.eps).sqrt()).reshape(1, -1, 1, 1)
        return self.o(self.n(functional.relu(self.c(x))).mean((2, 3)))

    def move(self, mean, var):
        self.b.running_mean.mul_(0.9).add_(0.1 * mean)
        self.b.running_var.mul_(0.9).add_(0.1 * var)


class Copied(WrittenOut):
    def move(self, mean, var):
        self.b.running_mean.copy_(0.5 * self.b.running_mean + 0.5 * mean)
        self.b.running_var.copy_(0.5 * self.b.running_var + 0.5 * var)


@pytest.mark.parametrize("made", [Frozen, WrittenOut, Copied])
def test_a_file_has_what_is_computed_of_buffers_as_they_are_after_training(made, tmp_path):
    """The scale of such a norm is folded into one tensor, so that its variance has no name in the file."""
    torch.manual_seed(0)
    net, want = made(), made()
    want.load_state_dict(net.state_dict())
    x = IMAGES[:20]
    with torch.no_grad():
        for _ in range(4):
            want.train()(x)
    loader = DataLoader(TensorDataset(x, torch.randint(0, 4, (20,))), batch_size=20)
    data = dict.fromkeys(("train", "validation", "test"), loader)
    stage = {"stage": "finetune", "epochs": 4, "optimizer": {"name": "sgd", "lr": 1e-12}}
    results = attar.run(attar.Recipe(data=data, models={"a": {"source": net, "stages": [stage]}}), tmp_path / "run")
    with torch.no_grad():
        expected = want.eval()(x)
    torch.testing.assert_close(torch.from_numpy(attar.Session(results.files["a"]).run(x.numpy())), expected)
    moved = float((want.b.running_mean - 7).abs().max())
    assert (moved == 0) == (made is Frozen)
