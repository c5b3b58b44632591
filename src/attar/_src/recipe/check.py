"""Check: what the parts of a recipe must be to each other, before any compute."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os.path import normpath
from typing import TYPE_CHECKING, Any

from attar._src.core.errors import SpecError, UnknownName
from attar._src.data.registry import DATASETS
from attar._src.measure.metric import METRICS
from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Preset
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.recipe.reference import expand_path
from attar._src.work.context import Training

if TYPE_CHECKING:
    from attar._src.recipe.recipe import Recipe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that cannot work.

    Raises:
        SpecError: with the path in the recipe, what arrived and the nearest that would do.
    """
    if not recipe.models:
        raise SpecError("recipe.models: there is none; name one with a source, as in {student: {source: net.py:build}}")
    for field in ("seeds", "dynamic"):
        given = getattr(recipe, field)
        if len(set(given)) != len(given) or (field == "seeds" and not given):
            raise SpecError(f"recipe.{field}: {list(given)} should be different numbers, one at least")
    if 0 not in recipe.dynamic:
        raise SpecError(f"recipe.dynamic: {list(recipe.dynamic)} leaves out 0, the batch, which varies in training")
    _known("recipe.data.source", "data set", recipe.data.source, DATASETS)
    _known("recipe.metric", "metric", recipe.metric, METRICS)
    _check_caches(recipe)
    for name, model in recipe.models.items():
        where = f"recipe.models.{name}"
        if not _NAME.fullmatch(name):
            raise SpecError(f"{where}: a name is letters, digits, _ and -, for it becomes the name of a file")
        _check_source(where, model)
        _check_stages(where, model.stages)
        for index, stage in enumerate(model.stages):
            taught = taught_by(stage)
            _open(f"{where}.stages.{index}", stage, recipe)
            for teacher in taught:
                _named(f"{where}.stages.{index}.teacher", teacher, recipe)
            kept = {recipe.teacher_cache[teacher].variants for teacher in taught if teacher in recipe.teacher_cache} - {
                None
            }
            if len(kept) > 1:
                raise SpecError(
                    f"{where}.stages.{index}: its teachers have caches of {sorted(map(str, kept))} variants; they need "
                    "the same ones, so give all of them the same number"
                )
    if recipe.baseline is not None:
        _named("recipe.baseline", recipe.baseline, recipe)
    order(recipe)


def order(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the models, teachers before those they teach, else as they stand.

    Raises:
        SpecError: models teach each other in a circle.
    """
    return taught_through(recipe, recipe.models)


def taught_through(recipe: Recipe, names: Iterable[str]) -> tuple[str, ...]:
    """Return these models and those that teach them, through any number of others, teachers first.

    Raises:
        SpecError: models teach each other in a circle.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " <- ".join([*above[above.index(name) :], name])
            raise SpecError(f"recipe.models.{above[-1]}: models teach each other in a circle: {circle}; take one out")
        if name not in done:
            for stage in recipe.models[name].stages:
                for teacher in taught_by(stage):
                    visit(teacher, (*above, name))
            done.append(name)

    for name in names:
        visit(name, ())
    return tuple(done)


def taught_by(stage: Any) -> tuple[str, ...]:
    """Return the names of the models a stage learns from."""
    return stage.teachers() if isinstance(stage, Training) else ()


def _check_caches(recipe: Recipe) -> None:
    kept: dict[str, str] = {}
    for name, cache in recipe.teacher_cache.items():
        _named("recipe.teacher_cache", name, recipe)
        if cache.file is None:
            continue
        where = f"recipe.teacher_cache.{name}.file"
        trained = any(isinstance(stage, Training) for stage in recipe.models[name].stages)
        if trained and len(recipe.seeds) > 1:
            raise SpecError(
                f"{where}: {name!r} is trained, so it is another teacher under each of the seeds {list(recipe.seeds)}, "
                "and one file keeps one teacher; leave out file, or give one seed"
            )
        other = kept.setdefault(normpath(expand_path(cache.file)), name)
        if other != name:
            raise SpecError(f"{where}: {cache.file} is the cache of {other!r} too; give each a file of its own")


def _check_source(where: str, model: Any) -> None:
    source = model.source
    if (source.factory is None) == (source.file is None):
        raise SpecError(f"{where}.source: one of factory and file is needed, {'both' if source.file else 'none'} came")
    if source.file is None:
        return
    if model.stages:
        raise SpecError(
            f"{where}.stages: {model.source.file} is a file, through which no gradient goes; a file can only teach: "
            "take its stages out, or give a factory and weights"
        )
    extra = [name for name in ("arguments", "weights") if getattr(source, name)]
    if extra:
        raise SpecError(f"{where}.source.{extra[0]}: a file needs none; take it out")


def _check_stages(where: str, stages: tuple[Any, ...]) -> None:
    after = [index for index, stage in enumerate(stages) if isinstance(stage, PostTrainingQuantize)]
    if len(after) > 1:
        raise SpecError(
            f"{where}.stages.{after[1]}: a model is quantized after training once, stage {after[0]} does so already; "
            "take one out, or give the first epochs to train with"
        )
    if after and after[0] != len(stages) - 1:
        later = stages[after[0] + 1]
        raise SpecError(
            f"{where}.stages.{after[0] + 1}: {later.stage} trains, and cannot follow quantize without epochs; put it "
            "before, or give quantize epochs"
        )


def _open(where: str, stage: Any, recipe: Recipe) -> None:
    """Refuse teachers that are looked into and are no programs: of a file and of a cache outputs alone are known."""
    tuned = stage.expand() if isinstance(stage, Preset) else stage
    for index, term in enumerate(tuned.objective if isinstance(tuned, Finetune) else ()):
        at = f"{where}.objective.{index}.teacher" if hasattr(stage, "objective") else where
        for name in term.teacher_features():
            model = recipe.models.get(name)
            said = f"{at}: {term.name} looks into {name!r}"
            if name in recipe.teacher_cache:
                raise SpecError(f"{said}, of which a cache keeps outputs alone; take {name!r} out of teacher_cache")
            if model is not None and model.source.file is not None:
                raise SpecError(
                    f"{said}, which is a file and gives outputs alone; give {name!r} a factory and its weights as "
                    "source.weights"
                )
            if model is not None and any(isinstance(each, PostTrainingQuantize) for each in model.stages):
                raise SpecError(
                    f"{said}, which is rounded into a file after training and gives outputs alone; give its quantize "
                    "epochs, or take that stage out"
                )


def _known(where: str, what: str, given: Any, registry: Any) -> None:
    if isinstance(given, str) and ":" not in given and given not in set(registry):
        raise SpecError(f"{where}: {UnknownName(what, given, registry)}")


def _named(where: str, name: str, recipe: Recipe) -> None:
    if name not in recipe.models:
        raise SpecError(f"{where}: {UnknownName('model', name, recipe.models)}")
