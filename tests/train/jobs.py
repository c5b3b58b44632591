"""A small thing to train: images, a module with batch statistics and dropout, an objective with a projector."""

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.functional import cross_entropy

from attar._src.methods.prune.masks import Mask
from attar._src.train.augment import Crop, Flip
from attar._src.train.feed import ArrayFeed
from attar._src.train.fit import TrainingJob, fit
from attar._src.train.plan import TrainingPlan
from attar._src.train.store import CheckpointStore


class Extra(nn.Module):
    """A projector, and a parameter no loss reaches."""

    def __init__(self):
        super().__init__()
        self.projector, self.unused = nn.Linear(10, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.projector(x)


class Work:
    """A module in training; ``stop``: the evaluation in which somebody presses Ctrl-C."""

    def __init__(self, *, seed=0, stop=None, poison=None, program=None):
        torch.manual_seed(seed)
        self.module = nn.Sequential(
            *[nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()],
            nn.Linear(144, 10),
        )
        self.extra, self.stop, self.poison = Extra(), stop, poison
        self.all = nn.ModuleList([self.module, self.extra])
        self.program = self.module if program is None else program(self.module)
        self.steps, self.seen, self.evaluated = [], [], 0

    def loss(self, outputs, batch, progress):
        self.seen.append((batch, progress, outputs.dtype))
        hard = cross_entropy(outputs, batch.targets)
        if self.poison is not None and len(self.seen) == self.poison:
            hard = hard * torch.nan
        return {"loss": hard + cross_entropy(self.extra(outputs), batch.targets), "hard": hard}

    def evaluate(self):
        self.evaluated += 1
        if self.evaluated == self.stop:
            raise KeyboardInterrupt
        return {"figure": 0.5}

    def job(self):
        return TrainingJob(
            program=self.program,
            loss=self.loss,
            extra=self.extra,
            before_step=lambda step, steps: self.steps.append((step, steps)),
            sync=lambda mean: None,
            evaluate=self.evaluate,
            state=self.all.state_dict,
            load=self.all.load_state_dict,
        )

    def bytes(self):
        return {name: tensor.numpy().tobytes() for name, tensor in self.all.state_dict().items()}


def images(n=200):
    """Random images of 0..16 and labels."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 17, (n, 1, 8, 8), generator=draw, dtype=torch.uint8), torch.randint(
        0, 10, (n,), generator=draw
    )


def feed(n=200, **options):
    """A feed of them."""
    x, y = images(n)
    defaults = {"batch": 32, "prepare": lambda raw: raw.float() / 16, "augment": (Crop(padding=1), Flip()), "seed": 3}
    return ArrayFeed((x,), y, **{**defaults, **options})


def cpu(precision="32-true"):
    """One rank."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    return fabric


class Masked(nn.Module):
    """A linear layer whose mask sums gradients and movement."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.mask = Mask(self.weight, watched=True)

    def forward(self, x):
        return x @ self.mask(self.weight).T


def summed(fabric, folder, rank=0, world=1):
    """Gradient and movement of the weight over the four steps of an epoch that hardly train."""
    program = Masked()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    job = TrainingJob(
        program=program,
        loss=lambda outputs, batch, progress: {"loss": cross_entropy(outputs, batch.targets)},
        extra=nn.Module(),
        before_step=lambda step, steps: None,
        sync=program.mask.average,
        evaluate=dict,
        state=dict,
        load=lambda state: None,
    )
    plan = TrainingPlan(epochs=1, batch=16, optimizer={"name": "sgd", "lr": 1e-7}, clip=None)
    feed = ArrayFeed((x,), x[:, :3].argmax(1), batch=16, rank=rank, world=world, seed=1)
    fit(job, plan, feed, fabric, seed=2, store=CheckpointStore(folder), log=lambda row: None, what="test")
    return {"gradient": program.mask.gradient.tolist(), "movement": program.mask.movement.tolist()}
