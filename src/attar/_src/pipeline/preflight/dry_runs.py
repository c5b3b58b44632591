"""Every model of a recipe deployed once, untrained."""

from __future__ import annotations

from collections.abc import Mapping

from attar._src.core.errors import ModelError, ParityError, SpecError
from attar._src.core.progress import track
from attar._src.deploy.dry_run import DryRun, dry_run
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.model_source import ModelSource
from attar._src.recipe.recipe import Recipe
from attar._src.work.compressed_model import CalibrationInputs, FileInfo


def dry_run_models(
    recipe: Recipe, origins: Mapping[str, ModelSource], use: FileInfo, inputs: CalibrationInputs, journal: Journal
) -> dict[str, DryRun]:
    """Rehearse every module of a recipe, and journal which lose what their own code does in training.

    Raises:
        ModelError, ParityError, SpecError: one cannot be trained or deployed; the message names it.
    """
    found = {}
    for name, origin in track(origins.items(), "dry run"):
        if origin.module is None:
            continue
        try:
            found[name] = dry_run(origin.module, use, inputs.of(origin.parameters), dynamic=recipe.dynamic)
        except (ModelError, ParityError, SpecError) as error:
            raise type(error)(f"recipe.models.{name}: {error}") from error
        journal.decide(f"capture of {name}", found[name].mode)
    return found
