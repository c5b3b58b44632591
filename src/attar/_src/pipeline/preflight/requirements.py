"""Needs: whether the data and the models have what the stages ask for, before any compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.recipe.recipe import Recipe
from attar._src.train.feed import ArrayFeed
from attar._src.work.stage import Stage


def check_requirements(recipe: Recipe, sets: DataSplits, origins: Mapping[str, ModelSource]) -> None:
    """Refuse a recipe whose stages ask for what is not there.

    Raises:
        DataError: targets cannot be judged together, or batches lack a required argument of a model.
        SpecError: labels are missing, a batch is larger than the set or
            cannot be shared by the ranks, batches of a loader shall be augmented, a cache has more variants than there
            are, or nothing takes a gradient; with the path in the recipe.
    """
    sets.demand({name: origin.parameters for name, origin in origins.items()})
    feed = sets.feed(sets.train, shared_parameters(origins), augment=True)
    if recipe.data.augment and not isinstance(feed, ArrayFeed):
        raise SpecError(
            "recipe.data.augment: batches of a loader are taken as they come, and nothing would be drawn; augment in "
            "its data set, or give the data as arrays"
        )
    if recipe.teacher_cache and (not isinstance(feed, ArrayFeed) or feed.variants is None):
        loaded = not isinstance(feed, ArrayFeed)
        what = "a loader does not say which examples a batch has" if loaded else "the augmentation is endless"
        raise SpecError(
            f"recipe.teacher_cache.{next(iter(recipe.teacher_cache))}: {what}, and what is kept could not be found "
            "again; take arrays, with crop and flip alone, or take the cache out"
        )
    for name, cache in recipe.teacher_cache.items():
        if cache.variants is not None and feed.variants is not None and cache.variants > feed.variants:
            raise SpecError(
                f"recipe.teacher_cache.{name}.variants: {cache.variants} are more than the {feed.variants} the "
                "augmentation has; use fewer, or null for all"
            )
    for name, model in recipe.models.items():
        for index, stage in enumerate(model.stages):
            where = f"recipe.models.{name}.stages.{index}"
            _needs(where, stage, origins[name], labelled=feed.labelled)
            size = stage.batch_size()
            if size is not None and isinstance(feed, ArrayFeed):
                _fits(where, size, feed.examples, recipe.devices)


def _needs(where: str, stage: Stage, origin: ModelSource, *, labelled: bool) -> None:
    required = stage.required()
    if "labels" in required and not labelled:
        raise SpecError(
            f"{where}: {stage.stage} needs labels and the training examples have none; give some, or learn from a "
            "teacher alone, as distill does with beta: 0"
        )
    if "gradients" in required and not any(each.requires_grad for each in _parameters(origin)):
        raise SpecError(f"{where}: {stage.stage} trains and no parameter takes a gradient; set requires_grad of some")


def _fits(where: str, batch: int, examples: int, devices: int) -> None:
    if batch > examples:
        raise SpecError(f"{where}.batch: {batch} is larger than the {examples} training examples; use fewer")
    if batch % devices:
        raise SpecError(f"{where}.batch: {batch} cannot be shared by {devices} ranks; use a multiple")


def _parameters(origin: ModelSource) -> Any:
    assert origin.module is not None
    return origin.module.parameters()
