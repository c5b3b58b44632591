"""Re-estimation of batch-norms: running statistics for the final weights.

In training, running statistics lag behind the weights, and a small step may change many rounded weights at once
(Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.3; Nagel et al. 2022, "Overcoming
oscillations in quantization-aware training", section 3.2, on low bit widths).
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain, islice

import torch
from lightning_fabric import Fabric
from torch import fx, nn

from attar._src.model.operators import argument, arguments, is_batch_norm
from attar._src.train.batch import Feed
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.work.learner import Learner


def reestimate_norms(learner: Learner, feed: Feed, fabric: Fabric, *, batches: int, epoch: int, seed: int) -> None:
    """Set the running mean and variance of every batch-norm that training moves to averages over training batches.

    With m and v the mean and unbiased variance of a batch at a norm, the running statistics become the means of m and
    of v over batches, calls and ranks, summed in float64, as ``torch.nn.BatchNorm2d(momentum=None)`` computes them.
    Batches are normalized by their own statistics, as in training; constraints and dropout act as in evaluation.

    Args:
        learner: on the fabric's device; its buffers are changed in place.
        feed, epoch: the training examples from this epoch on.
        fabric: devices, ranks and precision.
        batches: number of batches on each rank.
        seed: seed of random numbers drawn by user code.
    """
    program = learner.graph(train=False)
    norms = _replace_norms(program, moving_norms(learner.captured.training))
    if not norms:
        return
    seed_everything(derive_seed(seed, "norms", fabric.global_rank))
    with torch.no_grad():
        following = chain.from_iterable(feed.epoch(number) for number in range(epoch, epoch + batches))
        for batch in islice(following, batches):
            with fabric.autocast():
                program(*batch.to(fabric.device).pick(learner.captured.names))
        for norm in norms:
            norm.finalize(fabric)


class _Norm(nn.Module):
    """Replaces a batch-norm of the program and averages the statistics of all batches."""

    def __init__(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        super().__init__()
        self.running = mean, variance  # in a tuple, because the buffers belong to the learner
        self.total = torch.zeros(2, *mean.shape, dtype=torch.float64, device=mean.device)
        self.calls = 0

    def forward(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        mean, variance = (torch.zeros_like(each) for each in self.running)
        normalized = torch.batch_norm(x, weight, bias, mean, variance, True, 1.0, eps, torch.backends.cudnn.enabled)
        self.total += torch.stack([mean, variance])
        self.calls += 1
        return normalized

    def finalize(self, fabric: Fabric) -> None:
        average = self.total / self.calls
        if fabric.world_size > 1:
            reduced = fabric.all_reduce(average, reduce_op="mean")
            assert isinstance(reduced, torch.Tensor)
            average = reduced
        for running, mean in zip(self.running, average, strict=True):
            running.copy_(mean)


def moving_norms(training: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the batch-norms whose running statistics move in training, by name: those that the module trains."""
    return {
        node.name: node
        for node in training.graph.nodes
        if is_batch_norm(node) and argument(node, "running_mean") is not None and argument(node, "training")
    }


def _replace_norms(program: fx.GraphModule, moving: Collection[str]) -> list[_Norm]:
    """Replace batch-norms by a :class:`_Norm`, one for all calls that share statistics; ``moving`` are their names."""
    norms: dict[int, _Norm] = {}
    state = dict(program.named_buffers(remove_duplicate=False))
    for node in list(program.graph.nodes):
        if node.name not in moving:
            continue
        x, weight, bias, mean, variance, eps = arguments(node, "input weight bias running_mean running_var eps")
        running = state[str(mean.target)], state[str(variance.target)]
        norm = norms.setdefault(id(running[0]), _Norm(*running))
        name = f"norm_{node.name}"
        program.add_submodule(name, norm)
        with program.graph.inserting_before(node):
            node.replace_all_uses_with(program.graph.call_module(name, (x, weight, bias, eps)))
        program.graph.erase_node(node)
    program.recompile()
    return list(norms.values())
