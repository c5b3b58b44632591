"""The groups of channels that a stage ``prune_channels`` may choose from, ranked before any trial."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice

from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.prune.channels.gradients import part_gradients
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.ranked import RankedChannels
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.channels.stage import PruneChannels
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.journal import Journal
from attar._src.recipe.recipe import Recipe
from attar._src.work.compressed_model import FileInfo
from attar._src.work.context import JudgedExamples

#: Calibration examples on which each layer is measured alone.
MEASURED_ALONE = 64


def labelled_by(recipe: Recipe, prepared: Preparation, use: FileInfo) -> Labelled:
    """Return what is known of the right outputs of a recipe's examples."""
    return Labelled.of(JudgedExamples(None, prepared.metric, recipe.class_layout, given=True), use)


def rank_groups(recipe: Recipe, prepared: Preparation, model: str, stage: PruneChannels) -> RankedChannels:
    """Return the channels of a model, as its source gives it, that a stage excludes not and its score judges."""
    calibration, runs = prepared.dry_runs(recipe, Journal.unwritten())
    source, run = prepared.sources[model], runs[model]
    source.begin(recipe.seeds[0])
    module = source.module
    assert module is not None
    use = replace(prepared.splits.use, licence=recipe.models[model].licence)
    some = calibration.of(source.parameters).first(MEASURED_ALONE, cut=run.traced.any_batch)
    judged = JudgedChannels(some, labelled_by(recipe, prepared, use))
    feed = prepared.splits.feed(prepared.splits.train, source.parameters, batch=stage.batch)
    gradients = partial(part_gradients, run.captured, islice(feed.once(), stage.batches), recipe.class_layout)
    return rank_channels(module, run.captured, stage, gradients, seed=recipe.seeds[0], judged=judged, use=use)
