"""A small network, a task it can learn, and what a run would lend a stage: all real, all quick."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.train.batch import Batch
from attar._src.train.seeds import derive_seed
from attar._src.train.store import CheckpointStore
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import TrainingContext
from attar._src.work.learner import Learner


class Net(nn.Module):
    """Two convolutions with batch-norms, a residual addition and a linear layer."""

    def __init__(self, width=8, classes=4):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        y = torch.relu(self.norm1(self.first(x)))
        y = torch.relu(self.norm2(self.second(y)) + y)
        return self.head(y.mean((2, 3)))


@dataclass
class ArrayFeed:
    """Examples in memory as batches."""

    x: torch.Tensor
    y: torch.Tensor | None
    batch: int
    variants = 1

    @property
    def examples(self):
        return len(self.x)

    @property
    def steps(self):
        return len(self.x) // self.batch

    @property
    def labelled(self):
        return self.y is not None

    def epoch(self, number):
        order = np.random.default_rng(derive_seed(5, "order", number)).permutation(len(self.x))
        for step in range(self.steps):
            yield self._batch(torch.from_numpy(order[step * self.batch : (step + 1) * self.batch]))

    def once(self):
        for start in range(0, len(self.x), self.batch):
            yield self._batch(torch.arange(start, min(start + self.batch, len(self.x))))

    def _batch(self, index):
        return Batch((self.x[index],), None if self.y is None else self.y[index], index)


def data(count=256, seed=0):
    """Images with stripes in one of four directions, with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    grid = np.mgrid[:8, :8]
    wave = np.stack(
        [np.sin(grid[0] * 1.6), np.sin(grid[1] * 1.6), np.sin(grid.sum(0) * 1.6), np.sin((grid[0] - grid[1]) * 1.6)]
    )
    x = wave[y][:, None] * [[[[1.0]], [[-0.5]]]] + rng.normal(scale=0.7, size=(count, 2, 8, 8))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


class ModuleTeacher:
    """A module as a teacher."""

    def __init__(self, module):
        self.module = module.eval()

    def outputs(self, batch):
        with torch.no_grad():
            return self.module(*batch.inputs)


def net(seed=0, **sizes):
    torch.manual_seed(seed)
    return Net(**sizes)


@functools.cache
def _captured(slot, width):
    module = net(width=width)
    captured = capture(module, (torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)),))
    return module, captured, deploy_graph(module, captured), {k: v.clone() for k, v in module.state_dict().items()}


def fresh(slot=0, width=8):
    """A learner of a small network as it was made; two at a time need two slots. Capturing one takes seconds."""
    module, captured, traced, state = _captured(slot, width)
    module.load_state_dict(state)
    module.zero_grad()
    return Learner(module, captured, traced)


def held_to(learner, rules, x):
    """Attach rules, and show the module ``x`` so that every grid begins."""
    for rule in rules:
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    for constraint in learner.constraints:
        graph(x)
        constraint.sync(lambda tensor: tensor.clone())


def context(folder, *, teachers=None, labelled=True, log=None, count=256):
    x, y = data(count)
    vx, vy = data(64, seed=1)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return TrainingContext(
        fabric=fabric,
        feed=lambda batch: ArrayFeed(x, y if labelled else None, batch),
        validation=ArrayFeed(vx, vy, 32),
        metric=lambda outputs, targets: float((outputs.argmax(-1) == targets).mean()),
        metric_name="accuracy",
        teachers=teachers or {},
        calibration=CalibrationInputs(((x[:64],),)),
        seed=3,
        store=CheckpointStore(Path(folder)),
        log=log or (lambda row: None),
    )


def same(one, other):
    """Whether two state dicts have the same bytes."""
    return one.keys() == other.keys() and all(
        a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(one.values(), other.values(), strict=True)
    )
