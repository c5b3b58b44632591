"""Dry runs: every module of a recipe deployed once, untrained."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attar._src.core.errors import DataError, ModelError, ParityError, SpecError
from attar._src.core.progress import track
from attar._src.deploy.dry_run import DryRun, dry_run
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.model_source import ModelSource
from attar._src.recipe.recipe import Recipe
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo


def dry_run_models(
    recipe: Recipe,
    sources: Mapping[str, ModelSource],
    use: FileInfo,
    inputs: CalibrationInputs,
    journal: Journal,
    known: Mapping[str, DryRun] = MappingProxyType({}),
) -> dict[str, DryRun]:
    """Return name of a module -> its dry run, and journal the mode in which each was captured.

    Those that are ``known`` are not done again.

    Raises:
        DataError, ModelError, ParityError, SpecError: a module cannot be trained or deployed; the message names it.
    """
    dry_runs = {}
    for name, source in track(sources.items(), "dry run"):
        if source.module is None:
            continue
        try:
            dry_runs[name] = known.get(name) or dry_run(
                source.module, use, inputs.of(source.parameters), dynamic=recipe.dynamic
            )
        except (DataError, ModelError, ParityError, SpecError) as error:
            raise type(error)(f"recipe.models.{name}: {error}") from error
        journal.decide(f"capture of {name}", "eval" if dry_runs[name].note else "train")
    return dry_runs
