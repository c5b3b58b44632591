"""Sums that a training keeps on two ranks: they are over the examples of both.

Guards buffers that hold the sums of one rank: DDP gives those of the first rank to the others before every step.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from attar._src.methods.prune.masks import Mask
from attar._src.train.feed import ArrayFeed
from attar._src.train.fit import TrainingJob, fit
from attar._src.train.plan import TrainingPlan
from attar._src.train.store import CheckpointStore

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from lightning_fabric import Fabric
from tests.train.test_sums_of_ranks import summed

torch.set_num_threads(1)
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true")
fabric.launch()
said = summed(fabric, Path(sys.argv[1], f"store{fabric.global_rank}"), rank=fabric.global_rank, world=2)
Path(sys.argv[1], f"rank{fabric.global_rank}.json").write_text(json.dumps(said))
torch.distributed.destroy_process_group()
"""


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
        loss=lambda outputs, batch, progress: {"loss": nn.functional.cross_entropy(outputs, batch.targets)},
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


def test_gradients_and_movement_are_those_of_all_ranks(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    alone = summed(Fabric(accelerator="cpu", devices=1), tmp_path / "alone")
    for name, values in alone.items():
        torch.testing.assert_close(torch.tensor(first[name]), torch.tensor(values), rtol=1e-4, atol=1e-5)
