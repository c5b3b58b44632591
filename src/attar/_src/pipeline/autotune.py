"""Decide: what a run settles once, at its start: threads, precision, layout. Journaled, and the same on resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from attar._src.deploy.dry_run import DryRun
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.model_source import ModelSource
from attar._src.recipe.recipe import Recipe
from attar._src.train.precision import Layout, Precision, channels_last, measure_precision
from attar._src.work.compressed_model import CalibrationInputs

_PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
_LAYOUTS: tuple[Layout, ...] = ("contiguous", "channels_last")


def autotune(
    recipe: Recipe,
    journal: Journal,
    rehearsed: Mapping[str, DryRun],
    inputs: CalibrationInputs,
) -> Recipe:
    """Return the recipe with everything that was left open decided.

    What is ``auto`` is measured on the largest model that trains, with batches as its first stage has them.
    """
    threads = recipe.threads or max(1, torch.get_num_threads() // recipe.devices)
    decided = {"threads": journal.decide("threads", threads)}
    torch.set_num_threads(decided["threads"])
    open_ = {"precision": recipe.precision, "layout": recipe.layout}
    if "auto" not in open_.values():
        return recipe.model_copy(update=decided)
    before = journal.find("decided", what="training")
    if before:
        return recipe.model_copy(update=decided | before[-1]["value"])
    trained = [name for name in rehearsed if recipe.models[name].trains]
    if not trained:
        return recipe.model_copy(update=decided | {"precision": _PRECISIONS[0], "layout": _LAYOUTS[0]})
    largest = max(trained, key=lambda name: rehearsed[name].traced.parameters)
    batch = next(size for stage in recipe.models[largest].stages if (size := stage.batch_size()) is not None)
    captured = rehearsed[largest].captured
    found = measure_precision(
        captured.training,
        inputs.of(dict.fromkeys(captured.names, True)).example(max(2, batch // recipe.devices)),
        precisions=_PRECISIONS if recipe.precision == "auto" else (recipe.precision,),
        layouts=_LAYOUTS if recipe.layout == "auto" else (recipe.layout,),
    )
    chosen = {"precision": found.precision, "layout": found.layout}
    journal.decide("training", chosen, model=largest, seconds=dict(found.figures))
    return recipe.model_copy(update=decided | chosen)


def apply_layout(recipe: Recipe, origins: Mapping[str, ModelSource]) -> None:
    """Lay the weights of every model that trains out as the recipe says."""
    if recipe.layout == "channels_last":
        for origin in origins.values():
            if origin.module is not None:
                channels_last(origin.module)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give PyTorch back the threads it had."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
