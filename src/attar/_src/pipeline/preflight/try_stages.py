"""Foresee: every stage, loss and metric of a recipe once on a few examples, untrained, before any training.

Globs, solvers, scores, losses and the number of classes are looked up where a stage begins, which may be hours after
the run did. What would fail there fails here, with its path in the recipe. Programs run in evaluation mode and random
numbers are drawn apart, so nothing that is trained later is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from attar._src.core.errors import AttarError, DataError, ModelError, SpecError
from attar._src.deploy.dry_run import DryRun
from attar._src.measure.metric import Metric
from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Preset
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.normalize import NormalizeConstraint
from attar._src.methods.teachers.teacher import ask_teachers, deployed_teacher
from attar._src.model.capture import CapturedModel
from attar._src.model.export import short_message
from attar._src.model.programs import copy_graph
from attar._src.model.taps import LayerTaps
from attar._src.model.weights import find_weights
from attar._src.pipeline.data_splits import DataSplits, Split
from attar._src.pipeline.model_source import ModelSource
from attar._src.recipe.recipe import Recipe
from attar._src.train.batch import Batch
from attar._src.train.feed import ArrayFeed, LoaderFeed
from attar._src.train.plan import TrainingPlan
from attar._src.train.seeds import IsolatedRandom, derive_seed
from attar._src.work.constraint import Progress
from attar._src.work.context import Teacher, Training
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective

#: Examples a loss is tried on, and a metric; outputs of the latter are repeated up to so many numbers.
_FEW, _MORE, _MOST = 8, 64, 1 << 24


def try_stages(
    recipe: Recipe,
    sets: DataSplits,
    origins: Mapping[str, ModelSource],
    rehearsed: Mapping[str, DryRun],
    metric: tuple[str, Metric],
) -> None:
    """Try every stage of every model, and the metric on what each gives.

    Raises:
        SpecError, ModelError, DataError: one cannot work; the message begins with its path in the recipe.
    """
    with IsolatedRandom(derive_seed(0, "foresee")):
        models = {name: _untrained(origin, rehearsed.get(name)) for name, origin in origins.items()}
        feed = sets.feed(sets.train, next(iter(origins.values())).names, augment=True)
        if isinstance(feed, ArrayFeed):
            with _at("recipe.data.augment"):
                next(iter(feed.epoch(0)))
        for name, model in recipe.models.items():
            origin = origins[name]
            if origin.module is None:
                continue
            learner = Learner(origin.module, rehearsed[name].captured, rehearsed[name].traced)
            batch = _few(sets, sets.train, origin, _FEW)[0]
            for index, stage in enumerate(model.stages):
                with _at(f"recipe.models.{name}.stages.{index}"):
                    if isinstance(stage, PostTrainingQuantize):
                        _round(stage, rehearsed[name])
                        continue
                    _lonely(stage, rehearsed[name].captured, sets, recipe.devices)
                    _try(stage, learner, batch, models)
        for name in recipe.models:
            with _at(f"recipe.metric: {metric[0]} of models.{name}"):
                _judge(sets, origins[name], models[name], metric[1])


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Begin the message of whatever is raised with ``where``."""
    try:
        yield
    except (DataError, ModelError) as error:
        raise type(error)(f"{where}: {error}") from error
    except AttarError as error:
        raise SpecError(f"{where}: {error}") from error
    except Exception as error:
        raise SpecError(f"{where}: {short_message(error)}") from error


class _Untrained:
    """A model as it is before training, as a teacher."""

    def __init__(self, program: fx.GraphModule) -> None:
        self.program = program

    def outputs(self, batch: Batch) -> torch.Tensor:
        return self.look(batch, ())[0]

    def look(self, batch: Batch, layers: Sequence[str]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        program = copy_graph(self.program)
        taps = LayerTaps(program, layers)
        with torch.no_grad():
            return _first(program(*batch.inputs)).float(), taps.take()


def _untrained(origin: ModelSource, rehearsed: DryRun | None) -> Teacher:
    if origin.session is not None:
        return deployed_teacher(origin.session)
    assert rehearsed is not None
    return _Untrained(rehearsed.captured.evaluation)


def _first(outputs: Any) -> torch.Tensor:
    first: torch.Tensor = next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))
    return first


def _few(sets: DataSplits, split: Split, origin: ModelSource, count: int) -> tuple[Batch, ArrayFeed | LoaderFeed]:
    """Return some examples as they are, among them those with the smallest and the largest label, and their feed."""
    feed = sets.feed(split, origin.names)
    if isinstance(feed, LoaderFeed):
        batch = next(iter(feed.once()))
        part = slice(count)
        return Batch(
            tuple(each[part] for each in batch.inputs), None if batch.targets is None else batch.targets[part]
        ), feed
    index = torch.linspace(0, feed.examples - 1, min(count, feed.examples), dtype=torch.float64).long()
    if feed.targets is not None and not feed.targets.is_floating_point() and feed.targets.numel():
        labels = feed.targets.reshape(feed.examples, -1)
        ends = torch.stack([labels.amin(1).argmin(), labels.amax(1).argmax()])
        index = torch.cat([ends, index])[: max(2, len(index))]
    return feed.at(index, torch.zeros_like(index)), feed


def _try(stage: Training, learner: Learner, batch: Batch, models: Mapping[str, Teacher]) -> None:
    """Attach a stage and compute its loss once."""
    stage.attach(learner)
    for constraint in learner.constraints:
        if isinstance(constraint, NormalizeConstraint):
            # It refuses what follows it, and changes nothing. Others judge weights, which are not trained yet.
            constraint.update(Progress(0, 1), learner.values_of(constraint))
    tuned = stage.expand() if isinstance(stage, Preset) else stage
    if not isinstance(tuned, Finetune):
        return
    program = learner.graph(train=False)
    taps = LayerTaps(program, tuned.features())
    outputs = program(*batch.inputs)
    said = ask_teachers(models, tuned.teachers(), tuned.teacher_features(), batch)
    every = tuple(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))
    batch = Batch(batch.inputs, batch.targets)
    sources = LossInputs(every[0], every, batch, said.outputs, 0.0, taps.take(), said.features)
    parts = []
    for term in tuned.objective:
        name = str(term.describe()["name"])
        with _at(f"loss {name}"):
            objective = term.build(learner)
            objective.prepare(sources)
            parts.append(_scalar(objective, sources))
    if not any(part.requires_grad for part in parts):
        raise SpecError("no loss depends on what is trained; compute it with PyTorch, on the outputs as they come")


def _scalar(objective: Objective, sources: LossInputs) -> torch.Tensor:
    try:
        found = objective(sources)
    except AttarError:
        raise
    except Exception as error:
        targets = sources.batch.targets
        given = "no targets"
        if targets is not None:
            kind = str(targets.dtype).removeprefix("torch.")
            ends = f" from {targets.min()} to {targets.max()}" if targets.numel() else ""
            given = f"targets {kind}{tuple(targets.shape)}{ends}"
        raise SpecError(f"of outputs {tuple(sources.outputs.shape)} and {given}: {short_message(error)}") from error
    if not isinstance(found, torch.Tensor) or found.dim():
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise SpecError(f"it gave {shape}; a loss is one number: the mean over the batch")
    return found


def _round(stage: PostTrainingQuantize, rehearsed: DryRun) -> None:
    """Look up what rounding after training needs, and try each weight's scheme."""
    if stage.activations is not None:
        OBSERVERS[stage.observer]
    SOLVERS[stage.scales]
    state, weights = rehearsed.traced.state(), find_weights(rehearsed.traced.graph)
    bits = stage._bits(weights, [name for name, value in state.items() if value.is_floating_point()])
    for name, width in bits.items():
        with _at(name):
            stage._scheme(width, weights.get(name)).granularity.index(tuple(state[name].shape))


def _lonely(stage: Training, captured: CapturedModel, sets: DataSplits, devices: int) -> None:
    """Refuse batches of one example where batch statistics are taken of one number: their variance is not finite."""
    norms = [
        node
        for node in captured.training.graph.nodes
        if node.target is torch.ops.aten.batch_norm.default and _is_single(node.args[0].meta.get("val"))
    ]
    if not norms or not isinstance(stage, TrainingPlan):
        return
    loader, hint = sets.train.loader, "use a batch of 2 or more for each rank"
    least = stage.batch // devices
    if loader is not None:
        size, count = getattr(loader, "batch_size", None), sets.train.examples
        if not isinstance(size, int) or count is None:
            return
        rest = 0 if getattr(loader, "drop_last", False) else count % size
        least, hint = (rest or size) // devices, "use a batch_size of 2 or more for each rank, and drop_last=True"
    if least == 1:
        raise SpecError(
            f"batch: a batch of one example for a rank, and batch-norm {norms[0].name!r} has no variance of one number "
            f"for each channel; {hint}"
        )


def _is_single(value: Any) -> bool:
    """Return whether one example has one number for each channel."""
    return (
        isinstance(value, torch.Tensor)
        and all(isinstance(n, int) for n in value.shape[2:])
        and (prod(value.shape[2:]) == 1)
    )


def _judge(sets: DataSplits, origin: ModelSource, model: Teacher, metric: Metric) -> None:
    """Let the metric see a few outputs, repeated, beside the targets of the whole set: choices look at those."""
    batch, feed = _few(sets, sets.validation or sets.train, origin, _MORE)
    if batch.targets is None:
        return
    outputs, targets, whole = model.outputs(batch).cpu().numpy(), batch.targets.numpy(), False
    if isinstance(feed, ArrayFeed):
        most = min(feed.examples, max(len(outputs), _MOST * len(outputs) // max(outputs.size, 1)))
        whole = most == feed.examples
        outputs, targets = outputs[np.arange(most) % len(outputs)], feed.targets[:most].numpy()
    try:
        metric(outputs, targets)
    except SpecError as error:
        # A metric of a user's may rightly refuse a part of a set, in which not every class is.
        if whole or error.__cause__ is None:
            raise
