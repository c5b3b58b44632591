"""The base of stages that train: a weighted sum of loss terms under constraints, resumed from checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch

from attar._src.core.errors import AttarError, SpecError, prefixed_errors, short_message
from attar._src.methods.devices import on_device
from attar._src.methods.loss_inputs import InputCollector
from attar._src.methods.objectives.custom import require_scalar
from attar._src.methods.training_job import StageJob
from attar._src.model.taps import LayerTaps
from attar._src.train.fit import fit
from attar._src.train.plan import TrainingPlan
from attar._src.train.schedule import Schedule
from attar._src.train.seeds import derive_seed
from attar._src.train.store import Checkpoint
from attar._src.work.context import TrainingContext, Trial
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.rule import Rule
from attar._src.work.size_budget import SizeBudget
from attar._src.work.stage import Stage
from attar._src.work.term import Term


class TrainingStage(TrainingPlan, Stage):
    """A stage that trains a module. A subclass gives the loss terms and the rules; all else is the same."""

    works_on: ClassVar[type[Learner]] = Learner
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def loss_terms(self) -> tuple[Term, ...]:
        """Return the terms of the loss."""
        raise NotImplementedError

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return the rules to attach in this stage, in order."""
        return ()

    def required(self) -> frozenset[str]:
        return self.needs.union(*(term.needs for term in self.loss_terms()))

    def teachers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for term in self.loss_terms() for name in term.teachers()))

    def inspected_teachers(self) -> Mapping[str, tuple[str | int, ...]]:
        listed = "objective" in type(self).model_fields
        return {
            name: ("objective", index, "teacher") if listed else ()
            for index, term in enumerate(self.loss_terms())
            for name in term.teacher_features()
        }

    def compresses(self) -> bool:
        return bool(self.attached_rules())

    def size_budget(self) -> SizeBudget | None:
        budgets = (term.size_budget() for term in self.loss_terms())
        return next((budget for budget in budgets if budget is not None), None)

    def ignored_targets(self) -> tuple[int, ...]:
        given = (getattr(term, "ignore_index", None) for term in self.loss_terms())
        return tuple(each for each in given if each is not None)

    def compares_losses(self) -> bool:
        """Return whether neither a rule, a budget nor a schedule changes the loss."""
        scheduled = any(isinstance(value, Schedule) for term in self.loss_terms() for value in vars(term).values())
        return not scheduled and not self.attached_rules() and self.size_budget() is None

    def batch_size(self) -> int:
        return self.batch

    def attach(self, learner: Learner) -> None:
        """Attach the stage's constraints to the learner.

        Raises:
            SpecError: a rule does not fit the module, or weights are averaged and batch-norms are not re-estimated.
        """
        normed = any(name.endswith("running_mean") for name, _ in learner.module.named_buffers())
        if self.average and normed and not self.norm_batches:
            raise SpecError(
                "average: batch-norms keep running statistics of the weights before averaging; re-estimate them with "
                "norm_batches, for example 50"
            )
        given = getattr(self, "constraints", ())
        for rule in self.attached_rules():
            place = next((f"constraints.{index}" for index, each in enumerate(given) if each is rule), "")
            with prefixed_errors(place) if place else nullcontext():
                learner.attach(rule.attach(learner))
        weights = learner.weight_view()
        for constraint in learner.constraints:
            constraint.check(weights)

    def try_on(self, model: Learner, trial: Trial) -> Learner:
        """Attach the constraints and compute the loss once, in evaluation mode."""
        self.attach(model)
        terms, batch = self.loss_terms(), trial.batch.part(slice(None))
        program, collector = model.graph(train=False), InputCollector(terms, model, trial.teachers, trial.layout)
        taps = LayerTaps(program, collector.features)
        with _kept_values(model) as ruled:
            outputs = program(*batch.pick(model.captured.names))
        inputs = collector.collect(outputs, taps, batch, collector.ask(batch), 0.0)
        losses = []
        for term in terms:
            with prefixed_errors(f"loss {term.describe()['name']}"):
                objective = term.build(model)
                objective.prepare(inputs)
                losses.append(_scalar_loss(objective, inputs))
        differentiable = [loss for loss in losses if loss.requires_grad]
        if not differentiable:
            raise SpecError("no loss depends on a trained parameter; compute losses from the outputs with PyTorch")
        # Of a weight under a rule what the program reads: it may be made of other parameters, as a codebook's points.
        parameters = dict(model.module.named_parameters())
        known = {name for constraint in model.constraints for name in constraint.weights}
        trained = {name: (each,) for name, each in parameters.items() if name not in known} | ruled
        frozen = {name for name, each in parameters.items() if not each.requires_grad}
        trained = {n: found for n, every in trained.items() if n not in frozen and (found := _trainable(every))}
        reached = _reached(differentiable, inputs, trained)
        model.unreached.append(trained.keys() - reached)
        return model

    def run(self, model: Learner, context: TrainingContext) -> Learner:  # type: ignore[override]
        """Train from the latest checkpoint of ``context.store``, and add the stage to the learner's record.

        Raises:
            SpecError: a rule or a term does not fit the module.
            AttarError: the loss is not finite; a checkpoint is damaged or cannot be written.
        """
        self.attach(model)
        latest = context.store.latest()
        done = latest if latest is not None and latest.done else None
        # Before the terms are built and on the CPU, because the rate term packs the module with its record.
        model.record.append(self.describe())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.seed, "objective"))
            losses = [(term, term.build(model)) for term in self.loss_terms()]
        with on_device(model, context.fabric.device):
            job = StageJob(self, losses, model, context, 0 if latest is None else latest.epoch)
            if done is None:
                history = self._fit(job, context)
            else:
                job.load({name.removeprefix("job."): tensor for name, tensor in done.tensors.items()})
        model.finalize()
        if done is None and context.fabric.is_global_zero:
            state = {f"job.{name}": tensor for name, tensor in job.state().items()}
            context.store.save(Checkpoint(self.epochs, state, {"history": history}, done=True))
        context.fabric.barrier()
        return model

    def _fit(self, job: StageJob, context: TrainingContext) -> list[dict[str, Any]]:
        job.feed = feed = context.feed(self.batch)
        callbacks, fabric, store, log = job.training_job(), context.fabric, context.store, context.log
        return fit(callbacks, self, feed, fabric, seed=context.seed, store=store, log=log, what=self.stage)


@contextmanager
def _kept_values(learner: Learner) -> Iterator[dict[str, tuple[torch.Tensor, ...]]]:
    """Yield what the rules make of each weight, by name, once the program has run."""
    acting = {name: rules[-1] for name in learner.weights if (rules := learner.weight_view().parametrizations(name))}
    found: dict[str, tuple[torch.Tensor, ...]] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        found[name] = (*found.get(name, ()), value)

    hooks = [each.register_forward_hook(lambda _, __, out, name=name: keep(name, out)) for name, each in acting.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _trainable(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(each for each in tensors if each.requires_grad)


def _reached(
    losses: Sequence[torch.Tensor], inputs: LossInputs, trained: Mapping[str, tuple[torch.Tensor, ...]]
) -> set[str]:
    """Return the names of ``trained`` on which a loss of outputs or layers depends.

    A loss of the weights alone, such as a rate, does not count: it trains nothing towards the data, and takes what no
    other loss keeps.
    """
    seen = _trainable([*inputs.every, *inputs.features.values()])
    found = set[str]()
    for loss in losses:
        if not seen or not any(each is not None for each in _gradients(loss, seen)):
            continue
        every = [(name, each) for name, several in trained.items() for each in several]
        gradients = _gradients(loss, [each for _, each in every])
        found |= {name for (name, _), each in zip(every, gradients, strict=True) if each is not None}
    return found


def _gradients(loss: torch.Tensor, of: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    return torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True) if of else ()


def _scalar_loss(objective: Objective, inputs: LossInputs) -> torch.Tensor:
    """Return the loss, or raise an error that shows the shapes of its inputs."""
    try:
        loss = objective(inputs)
    except AttarError:
        raise
    except Exception as error:
        targets = inputs.batch.targets
        described = "no targets"
        if targets is not None:
            ends = f" from {targets.min()} to {targets.max()}" if targets.numel() else ""
            described = f"targets {str(targets.dtype).removeprefix('torch.')}{tuple(targets.shape)}{ends}"
        raise SpecError(f"of outputs {tuple(inputs.outputs.shape)} and {described}: {short_message(error)}") from error
    return require_scalar(loss, "it")
