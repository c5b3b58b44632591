"""What a run needs before it trains: data, modules, and the dry run of each; runs of one search share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attar._src.deploy.dry_run import DryRun
from attar._src.measure.metric import Metric, find
from attar._src.pipeline.data_splits import DataSplits, load_splits
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.model_source import ModelSource, model_sources, shared_parameters
from attar._src.pipeline.preflight.dry_runs import dry_run_models
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import to_json
from attar._src.work.calibration_inputs import CalibrationInputs


@dataclass
class Preparation:
    """Data and modules of a recipe, without its stages.

    Attributes:
        metric: its name and function.
        splits: of the data.
        sources: name of a model -> its module or file.
        made_of: the parts of the recipe that all this follows from.
    """

    metric: tuple[str, Metric]
    splits: DataSplits
    sources: Mapping[str, ModelSource]
    made_of: Mapping[str, Any]
    _tried: tuple[CalibrationInputs, dict[str, DryRun]] | None = field(default=None, init=False)

    def fits(self, recipe: Recipe) -> bool:
        """Return whether a run of this recipe may use it."""
        return self.made_of == _made_of(recipe)

    def dry_runs(self, recipe: Recipe, journal: Journal) -> tuple[CalibrationInputs, dict[str, DryRun]]:
        """Return the calibration inputs and the dry run of every module, done once.

        Raises:
            DataError, ModelError, ParityError, SpecError: a module cannot be trained or deployed.
        """
        if self._tried is None:
            calibration = self.splits.calibration(shared_parameters(self.sources))
            self._tried = calibration, {}
        calibration, known = self._tried
        known.update(dry_run_models(recipe, self.sources, self.splits.use, calibration, journal, known))
        return calibration, known

    def restore(self) -> None:
        """Restore modules that were passed as objects."""
        for source in self.sources.values():
            source.restore()


def prepare_run(recipe: Recipe) -> Preparation:
    """Read the data and make the modules of a recipe.

    Raises:
        SpecError, DataError, ModelError, ArtifactError: data or a model are missing or have the wrong form.
    """
    metric = find(recipe.metric, recipe.class_layout)
    splits = load_splits(recipe.data, recipe.folder, task=recipe.task, metric=metric[0])
    return Preparation(metric, splits, model_sources(recipe, splits.calibration), _made_of(recipe))


def _made_of(recipe: Recipe) -> dict[str, Any]:
    sources = {name: to_json(model.source) for name, model in recipe.models.items()}
    alone = {name: to_json(getattr(recipe, name)) for name in ("data", "dynamic", "layout", "metric", "task")}
    classes, seed = (recipe.class_layout.axis, recipe.class_layout.ignore_index), recipe.seeds[0]
    return {"models": sources, "classes": classes, "seed": seed, "folder": str(recipe.folder.resolve()), **alone}
