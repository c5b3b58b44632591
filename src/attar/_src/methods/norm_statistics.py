"""Re-estimate: the running statistics of batch-norms anew, for the weights that will be stored.

While a module is trained, its running statistics follow weights that have moved on since, and where weights are rounded
a small step may change many of them at once. At the end of a stage they are taken again as plain averages (Izmailov et
al. 2018, "Averaging weights leads to wider optima", section 3.3; Nagel et al. 2022, "Overcoming oscillations in
quantization-aware training", section 3.2, on why low bit widths need it).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import fx, nn

from attar._src.model.operators import argument, arguments, is_batch_norm
from attar._src.train.batch import Batch, Feed
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.work.learner import Learner


def reestimate_norms(learner: Learner, feed: Feed, fabric: Fabric, *, batches: int, epoch: int, seed: int) -> None:
    """Take the running mean and variance of every batch-norm as averages over training batches.

    Each batch is normalised by its own statistics, as in training; constraints and dropout are as in evaluation. With m
    and v the mean and the unbiased variance a norm sees in a batch, its running statistics become the means of m and of
    v over batches, calls and ranks: what ``torch.nn.BatchNorm2d`` keeps with ``momentum=None``, summed in float64.

    Args:
        learner: on the fabric's device; its buffers are changed in place.
        feed: the training examples; their order and augmentation are those of ``epoch`` and those after it.
        fabric: devices, ranks and precision.
        batches: how many on each rank.
        epoch: the first that no step was made on.
        seed: of what code of others draws.
    """
    program = learner.graph(train=False)
    norms = _watched(program)
    if not norms:
        return
    seed_everything(derive_seed(seed, "norms", fabric.global_rank))
    with torch.no_grad():
        for batch in islice(_from(feed, epoch, batches), batches):
            with fabric.autocast():
                program(*batch.to(fabric.device).pick(learner.captured.names))
        for norm in norms:
            norm.finalize(fabric)


class _Norm(nn.Module):
    """A batch-norm in place of one of the program that averages the statistics of every batch."""

    def __init__(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        super().__init__()
        # In a tuple: the buffers are the learner's own.
        self.running = mean, variance
        self.total = torch.zeros(2, *mean.shape, dtype=torch.float64, device=mean.device)
        self.calls = 0

    def forward(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Return ``x`` normalised by its own statistics, and add these to the sums."""
        mean, variance = (torch.zeros_like(each) for each in self.running)
        found = torch.batch_norm(x, weight, bias, mean, variance, True, 1.0, eps, torch.backends.cudnn.enabled)
        self.total += torch.stack([mean, variance])
        self.calls += 1
        return found

    def finalize(self, fabric: Fabric) -> None:
        """Put the averages into the running statistics."""
        average = self.total / self.calls
        if fabric.world_size > 1:
            reduced = fabric.all_reduce(average, reduce_op="mean")
            assert isinstance(reduced, torch.Tensor)
            average = reduced
        for running, found in zip(self.running, average, strict=True):
            running.copy_(found)


def _watched(program: fx.GraphModule) -> list[_Norm]:
    """Put a :class:`_Norm` in place of every batch-norm with running statistics; one for all that share them."""
    found: dict[int, _Norm] = {}
    state = dict(program.named_buffers(remove_duplicate=False))
    for node in list(program.graph.nodes):
        if not is_batch_norm(node) or argument(node, "running_mean") is None:
            continue
        x, weight, bias, mean, variance, eps = arguments(node, "input weight bias running_mean running_var eps")
        running = state[str(mean.target)], state[str(variance.target)]
        norm = found.setdefault(id(running[0]), _Norm(*running))
        called = f"norm_{node.name}"
        program.add_submodule(called, norm)
        with program.graph.inserting_before(node):
            node.replace_all_uses_with(program.graph.call_module(called, (x, weight, bias, eps)))
        program.graph.erase_node(node)
    program.recompile()
    return list(found.values())


def _from(feed: Feed, epoch: int, batches: int) -> Iterator[Batch]:
    """Yield the batches of an epoch and of as many after it as ``batches`` can need."""
    for number in range(epoch, epoch + batches):
        yield from feed.epoch(number)
