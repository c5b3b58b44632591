"""The training loop of every stage that trains.

Randomness in an epoch depends only on the seed and the epoch's number, schedules only on the step's number. So a
checkpoint holds just tensors and numbers, and resuming from it gives the same bytes.
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
from attar._src.core.progress import Bar
from attar._src.train.average import WeightAverage
from attar._src.train.batch import Batch, Feed
from attar._src.train.plan import CLIP, TrainingPlan
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.train.store import Checkpoint, CheckpointStore, flatten_state, unflatten_state

_PARAMETRIZATION = "program.attar_parametrization"  # prefix of the names of constraints' parameters and buffers
_CHECK_LOSSES_EVERY = 50  # steps: checks of the losses synchronise with the device and the other ranks


@dataclass(frozen=True)
class TrainingJob:
    """The module, loss and callbacks of a training.

    Attributes:
        program: called with the batch's inputs in ``names``. All its parameters are trained; those of submodules named
            ``attar_parametrization*`` (constraints) without weight decay. It must be on the fabric's device, because
            its buffers may be shared with other programs; its mode is never changed.
        loss: (float32 outputs, batch, progress 0 to 1) -> scalars, with the same names every time; ``loss`` is
            minimised, the others are logged.
        extra: modules of the loss whose parameters are trained too.
        before_step: called with the step's number and the number of steps.
        sync: called after each epoch with a function that averages a tensor over the ranks.
        evaluate: returns figures for the log after each epoch, on every rank.
        state: returns all tensors for a checkpoint; ``load`` restores them in place.
        names: the arguments of the program; empty for positional inputs.
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
    """Train for the plan's epochs, resuming from the latest checkpoint.

    An interruption at any moment, even a power failure, loses at most the current epoch.

    Args:
        fabric: launched; several ranks need the strategy ``ddp_find_unused_parameters_true``, so that a parameter
            without gradient does not block the others.
        log: called on the first rank with the row of each epoch.
        what: label of the progress bar.

    Returns:
        One row per epoch, including those before a resumption: ``epoch`` (from 1), the means of the loss's parts, the
        figures of ``evaluate``, ``lr`` of the last step, and ``seconds``, which differ from run to run.

    Raises:
        AttarError: the loss is not finite, or a checkpoint is damaged or cannot be written.
        DataError: the feed has no batches.
        SpecError: no parameter requires a gradient.
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
    """Program, loss and the loss's modules in one forward pass, so that DDP sees every parameter."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self.program, self.extra, self.loss, self.names = job.program, job.extra, job.loss, job.names

    def forward(
        self, inputs: tuple[Tensor, ...], rest: tuple[Tensor | None, ...], names: tuple[str, ...], progress: float
    ) -> dict[str, Tensor]:
        """Return the parts of the loss; ``rest`` is targets, index and variant of the batch."""
        targets, index, variant = rest
        batch = Batch(inputs, targets, index, variant, names)
        made = self.program(*batch.pick(self.names))
        outputs = tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, made)
        return dict(self.loss(outputs, batch, progress))


class _Loop:
    def __init__(self, job: TrainingJob, plan: TrainingPlan, feed: Feed, fabric: Fabric, *, seed: int) -> None:
        self.job, self.plan, self.feed, self.fabric, self.seed = job, plan, feed, fabric, seed
        self.steps = plan.epochs * feed.steps
        whole = _Whole(job)
        self.optimizer = plan.optimizer.build(*parameter_groups(whole))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = WeightAverage(self.parameters, plan.average, self.steps)
        _keep_of_rank(whole)
        self.whole, self.stepper = fabric.setup(whole, self.optimizer)
        # Running statistics; constraints average their own buffers. After setup, because a move to a device replaces
        # buffers.
        self.buffers = [
            b for n, b in whole.named_buffers() if b.is_floating_point() and not n.startswith(_PARAMETRIZATION)
        ]

    def resume(self, checkpoint: Checkpoint | None, what: str) -> list[dict[str, Any]]:
        """Restore a checkpoint and return its history."""
        if checkpoint is None:
            return []
        if checkpoint.epoch > self.plan.epochs:
            raise AttarError(
                f"{what}: the checkpoint has completed {checkpoint.epoch} epochs but the plan asks for "
                f"{self.plan.epochs}; remove it to train from the start"
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
            if len(losses) == _CHECK_LOSSES_EVERY:
                self._check_losses(losses, number, index, bar)
        if not examples:
            raise DataError(f"epoch {number + 1} has no batches; a loader must give them each time it is iterated")
        self._check_losses(losses, number, index, bar)
        if number == self.plan.epochs - 1:
            self.average.put()
        self.job.sync(self._mean)
        for buffer in self.buffers:
            buffer.copy_(self._mean(buffer))
        with torch.no_grad():
            figures = self.job.evaluate()
        total = self._mean(torch.tensor(float(examples), dtype=torch.float64, device=self.fabric.device))
        means = {name: float(self._mean(value) / total) for name, value in sums.items()}
        return {**means, **figures, "lr": self.optimizer.param_groups[0]["lr"]}

    def save(self, store: CheckpointStore, history: list[dict[str, Any]]) -> None:
        """Write a checkpoint on the first rank; if that fails, all ranks raise."""
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
            raise failed or AttarError("the first rank could not write its checkpoint; see its error message")

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Run one optimizer step and return the parts of the loss."""
        # A loader may give more batches than its length; the schedule then stays at its end.
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

    def _check_losses(self, losses: list[Tensor], epoch: int, index: int, bar: Bar) -> None:
        """Raise if a loss since the last check is not finite, show their mean and clear them."""
        if not losses:
            return
        # The mean over the ranks makes all of them stop if one must.
        seen = self._mean(torch.stack(losses)).cpu()
        bad = (~torch.isfinite(seen)).nonzero()
        if len(bad):
            first = index - len(losses) + 1 + int(bad[0])
            lr = self.optimizer.param_groups[0]["lr"]
            lower, clip = self.plan.optimizer.lr / 10, CLIP if self.plan.clip is None else self.plan.clip / 2
            fix = f"lower optimizer.lr, for example to {lower:g}, or set clip: {clip:g}"
            raise AttarError(
                f"the loss is {float(seen[bad[0]])} in step {first + 1} of epoch {epoch + 1} (lr {lr:.3g}); {fix}, and "
                "check the inputs for NaN and infinities; the checkpoint of the previous epoch is intact"
            )
        bar.say(f"epoch {epoch + 1}/{self.plan.epochs}, loss {float(seen.mean()):.4g}")
        losses.clear()

    def _mean(self, value: Tensor) -> Tensor:
        """Return the mean of a floating-point tensor over the ranks, as a copy."""
        mean = self.fabric.all_reduce(value.detach().clone(), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean


def _keep_of_rank(whole: nn.Module) -> None:
    """Let DDP leave buffers alone that submodules name in ``of_rank``: else those of the first rank replace the others'
    before every step, and what is summed in them is of its examples alone."""
    names = [f"{path}.{name}" for path, module in whole.named_modules() for name in getattr(module, "of_rank", ())]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(whole, names)


def parameter_groups(whole: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters with weight decay, those of two axes or more but constraints', and the others."""
    decayed, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in whole.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() > 1 and not name.startswith(_PARAMETRIZATION)
            (decayed if decays else others).append(parameter)
    if not decayed and not others:
        raise SpecError("there is nothing to train: no parameter requires a gradient; set requires_grad on some")
    return decayed, others
