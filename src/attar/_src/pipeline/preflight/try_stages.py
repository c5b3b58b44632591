"""Every stage, loss and metric of a recipe tried once on a few examples, untrained, before any training.

Globs, solvers, scores, losses and the number of classes are looked up where a stage begins, which may be hours after
the run did. What would fail there fails here, with its path in the recipe. Programs run in evaluation mode and random
numbers are drawn apart, so nothing that is trained later is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.deploy.dry_run import DryRun
from attar._src.measure.metric import Metric
from attar._src.methods.teachers.teacher import deployed_teacher
from attar._src.model.capture import CapturedModel
from attar._src.model.operators import data_of, is_batch_norm
from attar._src.model.outputs import main_output
from attar._src.model.taps import LayerTaps
from attar._src.pipeline.data_splits import DataSplits, Split
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.pipeline.stage_sequence import StageSequence
from attar._src.recipe.recipe import Recipe
from attar._src.train.batch import Batch
from attar._src.train.feed import ArrayFeed, LoaderFeed
from attar._src.train.seeds import IsolatedRandom, derive_seed
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Teacher, Trial
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage

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
        parameters = shared_parameters(origins)
        feed = sets.feed(sets.train, parameters, augment=True)
        if isinstance(feed, ArrayFeed):
            with prefixed_errors("recipe.data.augment"):
                next(iter(feed.epoch(0)))
        for name, model in recipe.models.items():
            origin = origins[name]
            if origin.module is None:
                continue
            trial = Trial(_few(sets, sets.train, parameters, _FEW)[0], models)
            with _state_kept(origin.module):
                sequence = _untrained_sequence(origin.module, rehearsed[name], model.stages)
                for index, stage in enumerate(model.stages):
                    with prefixed_errors(f"recipe.models.{name}.stages.{index}"):
                        _check_batch_norms(stage, rehearsed[name].captured, sets, recipe.devices)
                        sequence.apply(index, partial(_try, stage, trial))
        for name in recipe.models:
            with prefixed_errors(f"recipe.metric: {metric[0]} of models.{name}"):
                _judge(sets, parameters, models[name], metric[1])


@contextmanager
def _state_kept(module: nn.Module) -> Iterator[None]:
    """Put the module's state back: a model that is trained after it was quantized gets rounded weights."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(before)


def _try(stage: Stage, trial: Trial, model: Any) -> Any:
    return stage.try_on(model, trial)


def _untrained_sequence(module: nn.Module, dry_run: DryRun, stages: Sequence[Stage]) -> StageSequence:
    untouched = CompressedModel(dry_run.traced)
    return StageSequence(Learner(module, dry_run.captured, dry_run.traced), stages, lambda **_: untouched)


class _Untrained:
    """A model as it is before training, as a teacher."""

    def __init__(self, captured: CapturedModel) -> None:
        self.captured = captured

    def outputs(self, batch: Batch) -> torch.Tensor:
        return self.look(batch, ())[0]

    def look(self, batch: Batch, layers: Sequence[str]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        program = self.captured.copy(train=False)
        taps = LayerTaps(program, layers)
        with torch.no_grad():
            return main_output(program(*batch.pick(self.captured.names))).float(), taps.take()


def _untrained(origin: ModelSource, rehearsed: DryRun | None) -> Teacher:
    if origin.session is not None:
        return deployed_teacher(origin.session)
    assert rehearsed is not None
    return _Untrained(rehearsed.captured)


def _few(
    sets: DataSplits, split: Split, parameters: Mapping[str, bool], count: int
) -> tuple[Batch, ArrayFeed | LoaderFeed]:
    """Return some examples as they are, among them those with the smallest and the largest label, and their feed."""
    feed = sets.feed(split, parameters)
    if isinstance(feed, LoaderFeed):
        return next(iter(feed.once())).part(slice(count)), feed
    index = torch.linspace(0, feed.examples - 1, min(count, feed.examples), dtype=torch.float64).long()
    if feed.targets is not None and not feed.targets.is_floating_point() and feed.targets.numel():
        labels = feed.targets.reshape(feed.examples, -1)
        ends = torch.stack([labels.amin(1).argmin(), labels.amax(1).argmax()])
        index = torch.cat([ends, index])[: max(2, len(index))]
    return feed.at(index, torch.zeros_like(index)), feed


def _check_batch_norms(stage: Stage, captured: CapturedModel, sets: DataSplits, devices: int) -> None:
    """Refuse batches of one example where batch statistics are taken of one number: their variance is not finite."""
    norms = [
        node
        for node in captured.training.graph.nodes
        if is_batch_norm(node) and _is_single(data_of(node)[0].meta.get("val"))
    ]
    size = stage.batch_size()
    if not norms or size is None:
        return
    loader, hint = sets.train.loader, "use a batch of 2 or more for each rank"
    least = size // devices
    if loader is not None:
        own, count = getattr(loader, "batch_size", None), sets.train.examples
        if not isinstance(own, int) or count is None:
            return
        rest = 0 if getattr(loader, "drop_last", False) else count % own
        least, hint = (rest or own) // devices, "use a batch_size of 2 or more for each rank, and drop_last=True"
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


def _judge(sets: DataSplits, parameters: Mapping[str, bool], model: Teacher, metric: Metric) -> None:
    """Let the metric see a few outputs, repeated, beside the targets of the whole set: choices look at those."""
    batch, feed = _few(sets, sets.validation or sets.train, parameters, _MORE)
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
