"""The task of a sampler that goes layer by layer, of a recipe whose holes are the bits of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attar._src.core.errors import SpecError
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.globs import matching_tensors
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.journal import Journal
from attar._src.recipe.recipe import Recipe
from attar._src.search.layerwise.levels import ChoosesLevels, SolvedLevels
from attar._src.search.layerwise.problem import LayerwiseProblem, LayerwiseTask
from attar._src.search.layerwise.times import in_milliseconds
from attar._src.search.samplers.sampler import SearchTask
from attar._src.search.space import Choose, Space
from attar._src.search.trials.spec import HoledRecipe
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import JudgedExamples

#: Calibration examples on which each layer is measured alone.
_MEASURED = 64


def search_task(holed: HoledRecipe, first: Recipe, prepared: Preparation, trials: int | None) -> SearchTask:
    """Return the task of a recipe's sampler; with layers, if it goes layer by layer.

    Args:
        holed: the recipe.
        first: at one point.
        prepared: its data and modules.
        trials: the number of points that will be asked for, if it is known.

    Raises:
        SpecError: the sampler needs layers, and a hole is no choice of their bits.
    """
    spec = holed.spec
    task = SearchTask(holed.space, spec.goal, spec.seed, trials, first.folder)
    if not spec.sampler.by_layer:
        return task
    problem = _problem(holed.space, first, prepared, spec.sampler.name, timed=spec.goal.aim == "ms")
    return LayerwiseTask(task.space, task.goal, task.seed, trials, first.folder, problem=problem)


def _problem(space: Space, first: Recipe, prepared: Preparation, sampler: str, *, timed: bool) -> LayerwiseProblem:
    """Return the problem of the bits of layers, each solved at all bits and measured alone; ``timed`` in ms."""
    model, layers = _layers(space, first, sampler)
    calibration, runs = prepared.dry_runs(first, Journal.unwritten())
    source = prepared.sources[model]
    source.begin(first.seeds[0])
    untouched = CompressedModel.of(runs[model].traced)
    stage = first.models[model].stages[0]
    assert isinstance(stage, ChoosesLevels)
    known, aliases = [*untouched.weights()], untouched.aliases()
    weights: dict[str, str] = {}
    for layer, path in layers.items():
        matched = matching_tensors(layer, known, aliases)
        if len(matched) != 1 or matched[0] in weights:
            raise SpecError(
                f"recipe.{path}: sampler {sampler!r} goes weight by weight, and {layer!r} has {len(matched)}: "
                f"{', '.join(matched[:3])}; name each weight, or take tpe"
            )
        weights[matched[0]] = path
    hole = space.holes[next(iter(space))]
    use = replace(prepared.splits.use, licence=first.models[model].licence)
    inputs = calibration.of(source.parameters)
    solved = SolvedLevels.solve(
        untouched,
        stage,
        inputs,
        use,
        names=[name for name in stage.chosen(untouched) if name in weights],
        bits=[int(each) for each in hole.values],
        sparsities=(0.0,),
        measured=inputs.first(_MEASURED, cut=runs[model].traced.any_batch),
        labelled=Labelled.of(JudgedExamples(None, prepared.metric, first.class_layout, given=True), use),
    )
    problem = in_milliseconds(solved, inputs) if timed else solved.problem
    return replace(problem, paths={name: (path,) for name, path in weights.items()})


def _layers(space: Space, first: Recipe, sampler: str) -> tuple[str, dict[str, str]]:
    """Return the model, and layer -> path of its hole.

    Raises:
        SpecError: a hole is something else.
    """
    found: dict[str, str] = {}
    places, values = set[tuple[str, ...]](), set[Sequence[int]]()
    for path, hole in space.holes.items():
        parts = path.split(".")
        model, layer = parts[1] if len(parts) > 1 else "", ".".join(parts[5:])
        stages = first.models[model].stages if parts[0] == "models" and model in first.models else ()
        counted = isinstance(hole, Choose) or hole.whole
        bits = counted and all(type(each) is int and 2 <= each <= 8 for each in hole.values)
        fits = parts[2:5] == ["stages", "0", "overrides"] and layer and bits
        if not fits or not stages or not isinstance(stages[0], ChoosesLevels):
            raise SpecError(
                f"recipe.{path}: sampler {sampler!r} goes layer by layer and reads sensitivities of the model as its "
                "source gives it, so holes are choices of 2 to 8 bits in overrides of a first stage quantize: "
                "{'*': {choose: [2, 3, 4, 8], each: layer}}; take tpe, nsga2 or random for others"
            )
        places.add(tuple(parts[:5]))
        values.add(tuple(sorted(hole.values)))
        found[layer] = path
    if len(places) > 1 or len(values) > 1:
        raise SpecError(
            f"sampler {sampler!r} goes through the layers of one stage with the same choices for all; here are "
            f"{len(places)} stages and {len(values)} lists of choices; make them one, or take tpe"
        )
    return next(iter(places))[1], found
