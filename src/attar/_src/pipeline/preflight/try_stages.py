"""A trial of every stage, loss and metric of a recipe on a few examples, before any training.

A stage resolves its globs, solvers, scores and losses when it starts, which may be hours after the run did; the trial
finds their errors in seconds. Programs run in evaluation mode and random numbers come from a separate generator, so the
later training is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.deploy.dry_run import DryRun
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import Metric, per_class
from attar._src.methods.teachers.teacher import DeployedTeacher
from attar._src.model.capture import CapturedModel
from attar._src.model.interface import flatten_outputs, main_output
from attar._src.model.operators import argument, data_of, is_batch_norm
from attar._src.model.taps import LayerTaps
from attar._src.model.traced import TracedModel
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.pipeline.preflight.check_splits import check_labels, check_test
from attar._src.pipeline.split import Split
from attar._src.pipeline.stage_sequence import StageSequence
from attar._src.recipe.recipe import Recipe
from attar._src.report.wording import listed
from attar._src.train.batch import Batch
from attar._src.train.feed import ArrayFeed, LoaderFeed
from attar._src.train.seeds import IsolatedRandom, derive_seed
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Look, Teacher, Trial
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage

_STAGE_EXAMPLES, _METRIC_EXAMPLES = 8, 64
_METRIC_ELEMENTS = 1 << 24  # outputs are repeated up to this many elements for the metric's trial


def try_stages(
    recipe: Recipe,
    splits: DataSplits,
    sources: Mapping[str, ModelSource],
    dry_runs: Mapping[str, DryRun],
    metric: tuple[str, Metric],
) -> dict[str, str]:
    """Try every stage of every model, and the metric on the outputs of each model.

    Returns:
        Model -> a warning, of models with parameters on which no loss depends.

    Raises:
        SpecError, ModelError, DataError: a stage or the metric fails; the message begins with its path in the recipe.
    """
    with IsolatedRandom(derive_seed(0, "foresee")):
        teachers: dict[str, Teacher] = {name: _Untrained(dry_run.captured) for name, dry_run in dry_runs.items()}
        teachers |= {name: DeployedTeacher(each.session) for name, each in sources.items() if each.session is not None}
        parameters = shared_parameters(sources)
        check_test(splits, parameters, recipe.dynamic)
        feed = splits.feed(splits.train, parameters, augment=True)
        if isinstance(feed, ArrayFeed):
            with prefixed_errors("recipe.data.augment"):
                next(iter(feed.epoch(0)))
        examples, _ = _some_examples(splits, splits.train, parameters, _STAGE_EXAMPLES)
        trial = Trial(examples, teachers, recipe.class_layout)
        warnings = {}
        for name, dry_run in dry_runs.items():
            module = sources[name].module
            assert module is not None
            learner = Learner(module, dry_run.captured, dry_run.traced)
            _try_model(name, learner, recipe, splits, trial)
            if unreached := _unreached(learner, dry_run.traced):
                warnings[name] = unreached
        layout = recipe.class_layout
        for name in recipe.models:
            with prefixed_errors(f"recipe.metric: {metric[0]} of models.{name}"):
                shapes = _try_metric(
                    metric[1], splits, splits.validation or splits.train, parameters, teachers[name], layout
                )
            with prefixed_errors("recipe.data.source"):
                check_labels(splits, name, *shapes, layout)
            with prefixed_errors(f"recipe.data.source: the test split, by {metric[0]} of models.{name}"):
                _try_metric(metric[1], splits, splits.test, parameters, teachers[name], layout)
    return warnings


def _unreached(learner: Learner, traced: TracedModel) -> str:
    """Return a sentence on the deployed parameters that no training changes; empty if there are none."""
    names = [name for name in traced.names if learner.unreached and all(name in each for each in learner.unreached)]
    if not names:
        return ""
    shown = listed([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])
    return (
        f"no loss depends on {shown}, so what is computed from {'it' if len(names) == 1 else 'them'} alone stays as it "
        "was before the training, or loses what a rate takes: losses read the main output; add other_outputs, with a "
        "teacher that has these outputs, or an objective of your own that reads LossInputs.every; or, if these "
        "parameters are trained already, freeze them (requires_grad=False) and keep their layers in floating point "
        "(keep)"
    )


def _try_model(name: str, learner: Learner, recipe: Recipe, splits: DataSplits, trial: Trial) -> None:
    stages, untouched = recipe.models[name].stages, CompressedModel.of(learner.traced)
    sequence = StageSequence(learner, stages, lambda **_: untouched)
    with _state_restored(learner.module):
        for index, stage in enumerate(stages):
            with prefixed_errors(f"recipe.models.{name}.stages.{index}"):
                _check_batch_norms(stage, learner.captured, splits, recipe.devices)
                sequence.apply(index, lambda stage, model: stage.try_on(model, trial))


@contextmanager
def _state_restored(module: nn.Module) -> Iterator[None]:
    """Restore the module's state afterwards, because training after quantization starts from rounded weights."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(before)


class _Untrained:
    """An untrained model as a teacher."""

    def __init__(self, captured: CapturedModel) -> None:
        self.captured = captured

    def outputs(self, batch: Batch) -> torch.Tensor:
        return self.look(batch, ()).main

    def look(self, batch: Batch, layers: Sequence[str]) -> Look:
        program = self.captured.copy(train=False)
        taps = LayerTaps(program, layers)
        with torch.no_grad():
            outputs = program(*batch.pick(self.captured.names))
        return Look(main_output(outputs).float(), flatten_outputs(outputs), taps.take())


def _some_examples(
    splits: DataSplits, split: Split, parameters: Mapping[str, bool], count: int
) -> tuple[Batch, ArrayFeed | LoaderFeed]:
    """Return ``count`` examples, not augmented, and their feed; of arrays, the smallest and largest label are there."""
    feed = splits.feed(split, parameters)
    if isinstance(feed, LoaderFeed):
        return next(iter(feed.once())).part(slice(count)), feed
    index = torch.linspace(0, feed.examples - 1, min(count, feed.examples), dtype=torch.float64).long()
    if feed.targets is not None and not feed.targets.is_floating_point() and feed.targets.numel():
        labels = feed.targets.reshape(feed.examples, -1)
        ends = torch.stack([labels.amin(1).argmin(), labels.amax(1).argmax()])
        index = torch.cat([ends, index])[: max(2, len(index))]
    return feed.at(index, torch.zeros_like(index)), feed


def _check_batch_norms(stage: Stage, captured: CapturedModel, splits: DataSplits, devices: int) -> None:
    """Refuse batches of one example if a batch-norm sees one number a channel, whose variance is not finite."""
    norms = [
        node
        for node in captured.training.graph.nodes
        if is_batch_norm(node) and argument(node, "training") and _is_single(data_of(node)[0].meta.get("val"))
    ]
    size = stage.batch_size()
    if not norms or size is None:
        return
    loader, hint = splits.train.loader, "use a batch of 2 or more for each rank"
    least = size // devices
    if loader is not None:
        own, count = getattr(loader, "batch_size", None), splits.train.examples
        if not isinstance(own, int) or count is None:
            return
        rest = 0 if getattr(loader, "drop_last", False) else count % own
        least, hint = (rest or own) // devices, "use a batch_size of 2 or more for each rank, and drop_last=True"
    if least == 1:
        raise SpecError(
            f"batch: a rank has a batch of one example, and batch-norm {norms[0].name!r} needs more than one number "
            f"a channel for a variance; {hint}"
        )


def _is_single(value: Any) -> bool:
    """Return whether an input ``(N, C, ...)`` has one number for each example and channel."""
    return isinstance(value, torch.Tensor) and all(type(n) is int and n == 1 for n in value.shape[2:])


def _try_metric(
    metric: Metric,
    splits: DataSplits,
    split: Split,
    parameters: Mapping[str, bool],
    model: Teacher,
    layout: ClassLayout,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Call the metric, and the report of classes, with a few outputs, repeated, and the targets of a whole split.

    Return the shapes of the outputs and the targets.
    """
    batch, feed = _some_examples(splits, split, parameters, _METRIC_EXAMPLES)
    if batch.targets is None:
        return (), ()
    outputs, targets, whole = model.outputs(batch).cpu().numpy(), batch.targets.numpy(), False
    if isinstance(feed, ArrayFeed):
        most = min(feed.examples, max(len(outputs), _METRIC_ELEMENTS * len(outputs) // max(outputs.size, 1)))
        whole = most == feed.examples
        outputs, targets = outputs[np.arange(most) % len(outputs)], feed.targets[:most].numpy()
    try:
        metric(outputs, targets)
        if splits.has_classes:
            per_class(outputs, targets, layout)
    except SpecError as error:
        # A user's metric may refuse a part of a split in which a class is missing.
        if whole or error.__cause__ is None:
            raise
    return outputs.shape, targets.shape
