"""Two processes on one machine, for tests of ranks.

What they need is imported once, before they are made: that takes longer than what they do.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

ROOT = Path(__file__).resolve().parents[1]


def said_by_both(function, folder, *, first=""):
    """Return what a function returned on two ranks, by way of JSON.

    Args:
        function: ``module:name`` of a function of the Fabric and the folder.
        folder: what the ranks may write to.
        first: ``module:name`` of a function that is called before there are two, to make once what both need.
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.two_ranks", function, str(folder), first]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def main(function, folder, first):
    """Run a function on two ranks."""
    torch.set_num_threads(1)
    called = _named(function)
    if first:
        _named(first)()
    strategy = DDPStrategy(start_method="fork", find_unused_parameters=True)
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch(_on_rank, called, Path(folder))


def _named(where):
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _on_rank(fabric, function, folder):
    said = function(fabric, folder)
    (folder / f"rank{fabric.global_rank}.json").write_text(json.dumps(said))
    # Together: a rank that leaves while the other still talks to it may end it with an abort.
    fabric.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
