"""Two processes on one machine, for tests of ranks.

Both are forked from one that has what they need: importing takes longer than what they do.
"""

import importlib
import json
import warnings
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from tests.forked import Forked


def said_by_both(function, folder, *, first=""):
    """Return what a function returned on two ranks, by way of JSON.

    Args:
        function: ``module:name`` of a function of the Fabric and the folder.
        folder: what the ranks may write to.
        first: ``module:name`` of a function that is called before there are two, to make once what both need.
    """
    code, _, errors = Forked(_launch, (function, folder, first), folder).ended()
    assert code == 0, errors[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def _launch(function, folder, first):
    warnings.simplefilter("ignore")
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
