"""Requirements: labels, gradients, batch sizes and caches that the stages need, checked against data and models."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from attar._src.core.errors import SpecError
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.recipe.recipe import Recipe
from attar._src.train.feed import ArrayFeed, LoaderFeed
from attar._src.work.stage import Stage


def check_requirements(recipe: Recipe, splits: DataSplits, sources: Mapping[str, ModelSource]) -> None:
    """Refuse a recipe whose data or models lack what its stages require; messages begin with the path in the recipe.

    Raises:
        DataError: targets differ in shape from batch to batch, or batches lack a required argument of a model.
        SpecError: labels, gradients or cached variants are missing; a batch is larger than the training set or not a
            multiple of the ranks; batches of a loader should be augmented.
    """
    parameters = {name: source.parameters for name, source in sources.items()}
    splits.check_loaders(parameters, recipe.class_layout.ignore_index)
    feed = splits.feed(splits.train, shared_parameters(sources), augment=True)
    if recipe.data.augment and not isinstance(feed, ArrayFeed):
        raise SpecError(
            "recipe.data.augment: batches of a loader are not augmented; augment in its data set, or give arrays"
        )
    _check_caches(recipe, feed)
    for where, name, _, stage in recipe.each_stage():
        _check_stage(where, stage, sources[name].module, labelled=feed.labelled)
        size = stage.batch_size()
        if size is not None and isinstance(feed, ArrayFeed):
            _check_batch(where, size, feed.examples, recipe.devices)


def _check_caches(recipe: Recipe, feed: ArrayFeed | LoaderFeed) -> None:
    for name, cache in recipe.teacher_cache.items():
        if feed.variants is None:
            loaded = isinstance(feed, LoaderFeed)
            what = (
                "a loader does not number its examples" if loaded else "the augmentation has infinitely many variants"
            )
            raise SpecError(
                f"recipe.teacher_cache.{name}: {what}, so cached outputs cannot be looked up; use arrays with crop and "
                "flip only, or remove the cache"
            )
        if cache.variants is not None and cache.variants > feed.variants:
            raise SpecError(
                f"recipe.teacher_cache.{name}.variants: {cache.variants} are more than the {feed.variants} of the "
                "augmentation; use fewer, or null for all"
            )


def _check_stage(where: str, stage: Stage, module: nn.Module | None, *, labelled: bool) -> None:
    required = stage.required()
    if "labels" in required and not labelled:
        raise SpecError(
            f"{where}: {stage.stage} needs labels and the training examples have none; add labels, or learn from a "
            "teacher alone, as distill does with beta: 0"
        )
    parameters = () if module is None else module.parameters()
    if "gradients" in required and not any(each.requires_grad for each in parameters):
        raise SpecError(f"{where}: {stage.stage} trains but no parameter requires a gradient; set requires_grad")


def _check_batch(where: str, batch: int, examples: int, devices: int) -> None:
    if batch > examples:
        raise SpecError(f"{where}.batch: {batch} is larger than the {examples} training examples; use a smaller batch")
    if batch % devices:
        raise SpecError(f"{where}.batch: {batch} is not a multiple of the {devices} ranks; use a multiple")
