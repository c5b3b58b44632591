"""The base of stages that train: a weighted sum of loss terms under constraints, resumed from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from attar._src.core.errors import AttarError, SpecError, prefixed_errors, short_message
from attar._src.methods.devices import on_device
from attar._src.methods.teachers.teacher import ask_teachers
from attar._src.methods.training_job import StageJob
from attar._src.model.outputs import flatten_outputs, main_output
from attar._src.model.taps import LayerTaps
from attar._src.train.fit import fit
from attar._src.train.plan import TrainingPlan
from attar._src.train.seeds import derive_seed
from attar._src.train.store import Checkpoint
from attar._src.work.context import TrainingContext, Trial
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.rule import Rule
from attar._src.work.stage import Stage
from attar._src.work.term import Term


class TrainingStage(TrainingPlan, Stage):
    """A stage that trains a module.

    A subclass gives loss terms and rules. ``train``, ``distill``, ``prune``, ``quantize`` with epochs, ``compress`` and
    ``finetune`` differ in nothing else.
    """

    works_on: ClassVar[type[Learner]] = Learner
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def loss_terms(self) -> tuple[Term, ...]:
        """Return the terms of the loss."""
        raise NotImplementedError

    def attached_rules(self) -> tuple[Rule, ...]:
        """Return the rules to attach in this stage, in order."""
        return ()

    def required(self) -> frozenset[str]:
        """Return ``gradients``, and ``labels`` if a term needs them."""
        return self.needs.union(*(term.needs for term in self.loss_terms()))

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models that the terms learn from."""
        return tuple(dict.fromkeys(name for term in self.loss_terms() for name in term.teachers()))

    def features(self) -> tuple[str, ...]:
        """Return the paths of the student's layers that the terms read."""
        return tuple(dict.fromkeys(path for term in self.loss_terms() for path in term.features()))

    def teacher_features(self) -> dict[str, tuple[str, ...]]:
        """Return name of a teacher -> paths of its layers that the terms read."""
        layers: dict[str, dict[str, None]] = {}
        for term in self.loss_terms():
            for name, paths in term.teacher_features().items():
                layers.setdefault(name, {}).update(dict.fromkeys(paths))
        return {name: tuple(paths) for name, paths in layers.items()}

    def inspected_teachers(self) -> Mapping[str, tuple[str | int, ...]]:
        """Return name of a teacher whose layers a term reads -> path of that term's teacher in the stage's fields."""
        listed = "objective" in type(self).model_fields
        return {
            name: ("objective", index, "teacher") if listed else ()
            for index, term in enumerate(self.loss_terms())
            for name in term.teacher_features()
        }

    def size_budget(self) -> float | None:
        """Return the smallest budget of the terms, in bits per weight of the file, or None."""
        budgets = [term.size_budget() for term in self.loss_terms()]
        return min((budget for budget in budgets if budget is not None), default=None)

    def batch_size(self) -> int:
        """Return the examples of a training step over all ranks."""
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
        for rule in self.attached_rules():
            learner.attach(rule.attach(learner))
        weights = learner.weight_view()
        for constraint in learner.constraints:
            constraint.check(weights)

    def try_on(self, model: Learner, trial: Trial) -> Learner:
        """Attach the constraints and compute the loss once, in evaluation mode.

        Raises:
            SpecError: a rule or a term does not fit the module, the data or the teachers.
        """
        self.attach(model)
        program = model.graph(train=False)
        taps = LayerTaps(program, self.features())
        outputs = program(*trial.batch.pick(model.captured.names))
        answers = ask_teachers(trial.teachers, self.teachers(), self.teacher_features(), trial.batch)
        inputs = LossInputs(
            main_output(outputs),
            tuple(flatten_outputs(outputs).values()),
            trial.batch.part(slice(None)),
            answers.outputs,
            0.0,
            taps.take(),
            answers.features,
            model.weight_view(),
        )
        losses = []
        for term in self.loss_terms():
            with prefixed_errors(f"loss {term.describe()['name']}"):
                objective = term.build(model)
                objective.prepare(inputs)
                losses.append(_scalar_loss(objective, inputs))
        if not any(loss.requires_grad for loss in losses):
            raise SpecError("no loss depends on a trained parameter; compute losses from the outputs with PyTorch")
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
            objectives = [term.build(model) for term in self.loss_terms()]
        with on_device(model, context.fabric.device):
            job = StageJob(self, model, context, objectives, 0 if latest is None else latest.epoch)
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
        return fit(
            job.training_job(),
            self,
            feed,
            context.fabric,
            seed=context.seed,
            store=context.store,
            log=context.log,
            what=self.stage,
        )


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
    if not isinstance(loss, torch.Tensor) or loss.dim():
        shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise SpecError(f"it returned {shape}; a loss is one number: the mean over the batch")
    return loss
