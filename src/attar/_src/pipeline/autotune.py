"""Threads, precision and memory layout, chosen once at the start of a run and journaled for a resumed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

import torch

from attar._src.deploy.dry_run import DryRun
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.model_source import ModelSource
from attar._src.recipe.recipe import Recipe
from attar._src.train.precision import Layout, Precision, channels_last, measure_precision
from attar._src.work.calibration_inputs import CalibrationInputs

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def autotune(recipe: Recipe, journal: Journal, dry_runs: Mapping[str, DryRun], inputs: CalibrationInputs) -> Recipe:
    """Return the recipe with threads, precision and layout chosen.

    ``auto`` takes the fastest choice for training steps of the largest model that trains, with batches of its first
    training stage.
    """
    threads = recipe.threads or max(1, torch.get_num_threads() // recipe.devices)
    decided = {"threads": journal.decide("threads", threads)}
    torch.set_num_threads(decided["threads"])
    if "auto" not in (recipe.precision, recipe.layout):
        return recipe.model_copy(update=decided)
    before = journal.find("decided", what="training")
    trained = [name for name in dry_runs if recipe.models[name].trains]
    if before or not trained:
        chosen = before[-1]["value"] if before else {"precision": _PRECISIONS[0], "layout": _LAYOUTS[0]}
        return recipe.model_copy(update=decided | chosen)
    largest = max(trained, key=lambda name: dry_runs[name].traced.parameters)
    batch = next(size for stage in recipe.models[largest].stages if (size := stage.batch_size()) is not None)
    captured = dry_runs[largest].captured
    fastest = measure_precision(
        captured.training,
        inputs.of(dict.fromkeys(captured.names, True)).example(max(2, batch // recipe.devices)),
        precisions=_PRECISIONS if recipe.precision == "auto" else (recipe.precision,),
        layouts=_LAYOUTS if recipe.layout == "auto" else (recipe.layout,),
    )
    chosen = {"precision": fastest.precision, "layout": fastest.layout}
    journal.decide("training", chosen, model=largest, seconds=dict(fastest.figures))
    return recipe.model_copy(update=decided | chosen)


def apply_layout(recipe: Recipe, sources: Mapping[str, ModelSource]) -> None:
    """Put the weights of every module in the recipe's memory layout."""
    if recipe.layout == "channels_last":
        for source in sources.values():
            if source.module is not None:
                channels_last(source.module)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restore PyTorch's number of threads on exit."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
