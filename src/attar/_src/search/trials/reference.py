"""The reference of a search: the file that every trial is compared with, made once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import filelock

from attar._src.core.errors import AttarWarning, SpecError
from attar._src.methods.prune.channels.stage import PruneChannels
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.journal import Journal
from attar._src.recipe.recipe import Recipe
from attar._src.search.holes import LayerNames
from attar._src.search.trial import TrialOutcome, TrialReference, run_trial, scored_on
from attar._src.search.trials.ranked_groups import rank_groups
from attar._src.search.trials.spec import HoledRecipe
from attar._src.search.tried_file import TriedFile
from attar._src.work.compressed_model import CompressedModel

#: Its folder in that of a search.
REFERENCE = "reference"


@dataclass(frozen=True)
class SearchReference:
    """What trials are compared with.

    Attributes:
        name: in words.
        model: in the recipe.
        recipe: that makes it.
        outcome: what was measured of it.
        path: of the file.
    """

    name: str
    model: str
    recipe: Recipe
    outcome: TrialOutcome
    path: Path

    @property
    def compared(self) -> TrialReference:
        """What a trial needs of it."""
        return TrialReference(self.path, self.outcome.value)

    def as_file(self, options: dict[str, object]) -> TriedFile:
        """Return it as a file of the search that loses nothing."""
        seen = self.outcome
        return TriedFile(
            name=self.name,
            options=options,
            file=f"{REFERENCE}/{seen.file}",
            sha256=seen.sha256,
            file_bytes=seen.file_bytes,
            drop=0.0,
            unit=seen.unit,
            metric=seen.value,
            ms=seen.ms or 0.0,
            seconds=seen.seconds,
        )


def make_reference(
    holed: HoledRecipe, first: Recipe, judged: str, folder: Path, prepared: Preparation, *, seconds: float
) -> SearchReference:
    """Run what trials are compared with, or read it if it is there; with it the models that no hole changes.

    It is the recipe's baseline or first teacher, if no hole changes that; else the judged model as its source gives it,
    without stages.

    Args:
        holed: the recipe.
        first: its recipe at one point.
        judged: model whose file counts.
        folder: of the search.
        prepared: data and modules, by which a reference is told that is no better than chance.
        seconds: of its timing.
    """
    models = {name: first.models[name] for name in first.order if name != judged and holed.is_fixed(first, name)}
    model, name = first.reference, f"{first.reference}, the baseline"
    if model not in models:
        model, name = judged, "as its source gives it"
        models[judged] = first.models[judged].model_copy(update={"stages": ()})
    caches = {name: cache for name, cache in first.teacher_cache.items() if name in models}
    recipe = first.model_copy(update={"models": models, "teacher_cache": caches, "baseline": model})
    # Another process that runs this search may be making it.
    with filelock.FileLock(folder / f"{REFERENCE}.lock"):
        outcome = run_trial(recipe, folder / REFERENCE, model=model, seconds=seconds)
    path = folder / REFERENCE / outcome.file
    # Where no loss is bounded, files are compared with each other.
    if holed.spec.goal.max_drop is not None:
        assert prepared.splits.validation is not None
        scored = scored_on(prepared, prepared.splits.validation, path, model, recipe.class_layout)
        if scored.chance is not None and scored.chance.explains(scored.value):
            warnings.warn(
                f"files are compared with {model!r}, whose {scored.chance.words(outcome.metric, scored.value)}, so "
                "that a loss says nothing; give it trained weights or a trained baseline, or bound bytes and minimise "
                "drop",
                AttarWarning,
                stacklevel=2,
            )
    return SearchReference(name, model, recipe, outcome, path)


def layers_of(prepared: Preparation, recipe: Recipe, model: str, stage: int) -> LayerNames:
    """Return the layers of a model that a stage may name, in order: those with weights, or the first of each group of
    channels that can be removed; each with the names of its weights, too, and of all layers of the group.

    Raises:
        SpecError: the model is a file.
    """
    _, runs = prepared.dry_runs(recipe, Journal.unwritten())
    if model not in runs:
        raise SpecError(f"recipe.models.{model}: a file has no layers to choose for; remove each: layer")
    pruning = recipe.models[model].stages[stage]
    if isinstance(pruning, PruneChannels):
        groups = rank_groups(recipe, prepared, model, pruning).removable.found.named_groups
        return {name: [name, *_names(each.weights)] for name, each in groups.items()}
    untouched = CompressedModel.of(runs[model].traced)
    tied, layers = untouched.aliases(), dict[str, list[str]]()
    for name in untouched.weights():
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    # One of several weights, as of an LSTM, is not the layer.
    return {
        layer: [layer, *(_names([own[0], *(each for each in tied if tied[each] == own[0])]) if len(own) == 1 else [])]
        for layer, own in layers.items()
    }


def _names(weights: Iterable[str]) -> list[str]:
    """Return the names by which globs match one of these weights: its own and that of its layer."""
    return [each for name in weights for each in (name, name.rpartition(".")[0])]
