"""Fit: the one training loop. Everything that is trained, in whatever way, is trained here.

It knows modules, losses and batches; what these stand for (students, masks, grids) is known to who makes the
:class:`Job`. Whatever is random in an epoch follows from the seed and the epoch's number, and whatever changes with
time from the number of the step: a checkpoint holds tensors and numbers only, and going on from one gives the same
bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from attar._src.core.errors import AttarError, DataError, SpecError
from attar._src.core.interrupt import raise_if_interrupted
from attar._src.train.average import WeightAverage
from attar._src.train.bar import Bar
from attar._src.train.batch import Batch, Feed
from attar._src.train.optimizer import Group
from attar._src.train.optimizer_state import flatten_state, unflatten_state
from attar._src.train.plan import TrainingPlan
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.train.store import Checkpoint, CheckpointStore

_HELD = "program.held"  # what the names of constraints' parameters and buffers begin with
_LOOK = 50  # losses are looked at every so many steps: a look waits for the device and for the other ranks


@dataclass(frozen=True)
class TrainingJob:
    """What is trained.

    Attributes:
        program: called with those of the batch's inputs that ``names`` has. Its parameters are trained; those of
            submodules whose name starts with ``held`` (constraints) without weight decay. It is on the fabric's device
            already (its buffers may be shared with other programs), and its mode is never changed.
        loss: outputs of the program in float32, batch and progress (0 to 1) -> scalars; ``loss`` is minimised, the
            others are logged beside it, the same ones every time.
        extra: modules of the loss with parameters of their own, trained too.
        before_step: called with the step's number and how many steps there are.
        sync: called after each epoch with a function that averages a tensor over the ranks; makes ranks agree.
        evaluate: figures for the log, after each epoch, on every rank.
        state: what a checkpoint has to hold: of the model, the constraints and the objectives.
        load: puts such a state back, in place.
        names: the arguments the program takes; none where they are given by position.
    """

    program: nn.Module
    loss: Callable[[Any, Batch, float], Mapping[str, Tensor]]
    extra: nn.Module
    before_step: Callable[[int, int], None]
    sync: Callable[[Callable[[Tensor], Tensor]], None]
    evaluate: Callable[[], Mapping[str, float]]
    state: Callable[[], Mapping[str, Tensor]]
    load: Callable[[Mapping[str, Tensor]], None]
    names: tuple[str, ...] = ()


def fit(
    job: TrainingJob,
    plan: TrainingPlan,
    feed: Feed,
    fabric: Fabric,
    *,
    seed: int,
    store: CheckpointStore,
    log: Callable[[Mapping[str, Any]], None],
    what: str,
) -> list[dict[str, Any]]:
    """Train until the plan's epochs are done, from the latest checkpoint on.

    Stopping it at any moment, by Ctrl-C or by pulling the plug, loses at most the epoch under way.

    Args:
        job: what is trained; changed in place.
        plan: how long and how.
        feed: the examples.
        fabric: launched. With several ranks its strategy is ``ddp_find_unused_parameters_true``, so that a parameter
            no loss reaches does not hold the others up.
        seed: of this training.
        store: where checkpoints go and come from. The first rank writes.
        log: takes the row of each epoch trained now, on the first rank.
        what: is shown with the progress.

    Returns:
        one row for each epoch, those before a resumption included: ``epoch`` (from 1), the means of the loss's parts,
        the figures of ``evaluate``, ``lr`` of the last step, ``seconds``. The seconds differ from run to run: nothing
        of this may end in a file that shall be the same each time.

    Raises:
        AttarError: the loss is not finite; a checkpoint is damaged or cannot be written.
    """
    loop = _Loop(job, plan, feed, fabric, seed=seed)
    history = loop.resume(store.latest(), what)
    first = fabric.is_global_zero
    with Bar(what, plan.epochs * feed.steps, done=len(history) * feed.steps, shown=first) as bar:
        for epoch in range(len(history), plan.epochs):
            start = time.perf_counter()
            row = {"epoch": epoch + 1, **loop.epoch(epoch, bar)}
            row["seconds"] = round(time.perf_counter() - start, 3)
            history.append(row)
            loop.save(store, history)
            if first:
                log(row)
    return history


class _Whole(nn.Module):
    """Program, loss and the loss's modules in one forward, so that data-parallel training sees every parameter."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self.program, self.extra, self.loss, self.names = job.program, job.extra, job.loss, job.names

    def forward(
        self, inputs: tuple[Tensor, ...], rest: tuple[Tensor | None, ...], names: tuple[str, ...], progress: float
    ) -> dict[str, Tensor]:
        """Return the parts of the loss; ``rest``: targets, index and variant of the batch."""
        targets, index, variant = rest
        batch = Batch(inputs, targets, index, variant, names)
        made = self.program(*batch.pick(self.names))
        outputs = tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, made)
        return dict(self.loss(outputs, batch, progress))


class _Loop:
    """What lives as long as one training."""

    def __init__(self, job: TrainingJob, plan: TrainingPlan, feed: Feed, fabric: Fabric, *, seed: int) -> None:
        self.job, self.plan, self.feed, self.fabric, self.seed = job, plan, feed, fabric, seed
        self.steps = plan.epochs * feed.steps
        whole = _Whole(job)
        self.optimizer = plan.optimizer.build(parameter_groups(whole))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = WeightAverage(self.parameters, plan.average, self.steps)
        self.whole, self.stepper = fabric.setup(whole, self.optimizer)
        # After the set-up: moving a module to a device replaces its buffers.
        self.buffers = [b for n, b in whole.named_buffers() if b.is_floating_point() and not n.startswith(_HELD)]

    def resume(self, checkpoint: Checkpoint | None, what: str) -> list[dict[str, Any]]:
        """Put a checkpoint back and return the history in it."""
        if checkpoint is None:
            return []
        if checkpoint.epoch > self.plan.epochs:
            raise AttarError(
                f"{what}: the checkpoint has {checkpoint.epoch} epochs behind it and {self.plan.epochs} are asked for; "
                "remove it to train anew"
            )
        self.job.load({n.removeprefix("job."): t for n, t in checkpoint.tensors.items() if n.startswith("job.")})
        self.optimizer.load_state_dict(unflatten_state(checkpoint.facts["optimizer"], checkpoint.tensors))
        self.average.load(unflatten_state(checkpoint.facts["average"], checkpoint.tensors))
        return [dict(row) for row in checkpoint.facts["history"]]

    def epoch(self, number: int, bar: Bar) -> dict[str, float]:
        """Train for one epoch and return its row."""
        seed_everything(derive_seed(self.seed, "epoch", number, self.fabric.global_rank))
        self.job.extra.train()
        sums: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        examples = 0
        for index, batch in enumerate(self.feed.epoch(number)):
            parts = self._step(number * self.feed.steps + index, batch)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach().double() * len(batch)
            losses.append(parts["loss"].detach())
            examples += len(batch)
            bar.step()
            raise_if_interrupted()
            if len(losses) == _LOOK:
                self._look(losses, number, index, bar)
        if not examples:
            raise DataError(f"epoch {number + 1} has no batches; a loader has to give them each time it is iterated")
        self._look(losses, number, index, bar)
        if number == self.plan.epochs - 1:
            self.average.put()
        self._agree()
        with torch.no_grad():
            figures = self.job.evaluate()
        total = self._mean(torch.tensor(float(examples), dtype=torch.float64, device=self.fabric.device))
        means = {name: float(self._mean(value) / total) for name, value in sums.items()}
        return {**means, **figures, "lr": self.optimizer.param_groups[0]["lr"]}

    def save(self, store: CheckpointStore, history: list[dict[str, Any]]) -> None:
        """Write a checkpoint on the first rank; all ranks fail if that one does."""
        raise_if_interrupted()
        failed: AttarError | None = None
        if self.fabric.is_global_zero:
            tensors = {f"job.{name}": tensor for name, tensor in self.job.state().items()}
            try:
                optimizer = flatten_state(self.optimizer.state_dict(), "optimizer", tensors)
                average = flatten_state(self.average.state(), "average", tensors)
                facts = {"history": history, "optimizer": optimizer, "average": average}
                store.save(Checkpoint(len(history), tensors, facts))
            except AttarError as error:
                failed = error
        if float(self._mean(torch.tensor(float(failed is not None), device=self.fabric.device))):
            raise failed or AttarError("the first rank could not write its checkpoint; its message says why")

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Make one step and return the parts of the loss."""
        # A loader may give more batches than it said; the schedule has ended then.
        step = min(step, self.steps - 1)
        self.job.before_step(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.optimizer.lr * self.plan.factor(step, self.steps)
        batch = batch.to(self.fabric.device)
        parts = self.whole(batch.inputs, (batch.targets, batch.index, batch.variant), batch.names, step / self.steps)
        self.fabric.backward(parts["loss"])
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.stepper.step()
        self.average.add(step)
        self.optimizer.zero_grad()
        return dict(parts)

    def _look(self, losses: list[Tensor], epoch: int, index: int, bar: Bar) -> None:
        """Look at the losses since the last look, of all ranks, and forget them.

        Raises:
            AttarError: one is not finite.
        """
        if not losses:
            return
        # Averaged over the ranks, so that all of them stop where one must.
        seen = self._mean(torch.stack(losses)).cpu()
        bad = (~torch.isfinite(seen)).nonzero()
        if len(bad):
            first = index - len(losses) + 1 + int(bad[0])
            lr = self.optimizer.param_groups[0]["lr"]
            fix = "lower optimizer.lr" if self.plan.clip is not None else "lower optimizer.lr or set clip: 1.0"
            raise AttarError(
                f"the loss is {float(seen[bad[0]])} in step {first + 1} of epoch {epoch + 1} (lr {lr:.3g}); {fix}, and "
                "look for infinities in the inputs; the checkpoint of the epoch before is whole"
            )
        bar.say(f"epoch {epoch + 1}/{self.plan.epochs}, loss {float(seen.mean()):.4g}")
        losses.clear()

    def _agree(self) -> None:
        """Let all ranks have the same buffers: running statistics are averaged, constraints see to their own."""
        self.job.sync(self._mean)
        for buffer in self.buffers:
            buffer.copy_(self._mean(buffer))

    def _mean(self, value: Tensor) -> Tensor:
        """Return the mean of a floating tensor over the ranks, a copy."""
        value = value.detach().clone()
        if self.fabric.world_size > 1:
            reduced = self.fabric.all_reduce(value, reduce_op="mean")
            assert isinstance(reduced, Tensor)
            return reduced
        return value


def parameter_groups(whole: nn.Module) -> list[Group]:
    """Return the parameters that take a gradient: matrices and kernels decayed; vectors and constraints' own not.

    Raises:
        SpecError: there are none.
    """
    parameters = [(name, p) for name, p in whole.named_parameters() if p.requires_grad]
    if not parameters:
        raise SpecError("there is nothing to train: no parameter takes a gradient; set requires_grad of some")
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in parameters:
        split[parameter.dim() > 1 and not name.startswith(_HELD)].append(parameter)
    return [Group(tuple(each), decayed) for decayed, each in split.items() if each]
