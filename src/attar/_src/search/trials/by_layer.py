"""The task of a sampler that goes layer by layer, of a recipe whose holes are the bits of layers, or their channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attar._src.core.errors import SpecError
from attar._src.deploy.dry_run import DryRun
from attar._src.methods.prune.channels.stage import PruneChannels
from attar._src.methods.quantize.ptq.globs import matching_tensors
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.journal import Journal
from attar._src.recipe.recipe import Recipe
from attar._src.search.layerwise.channels import channel_problem
from attar._src.search.layerwise.facts import layer_facts
from attar._src.search.layerwise.levels import ChoosesLevels, SolvedLevels
from attar._src.search.layerwise.problem import LayerwiseProblem, LayerwiseTask
from attar._src.search.layerwise.times import in_milliseconds
from attar._src.search.samplers.sampler import SearchTask
from attar._src.search.space import Choose, Point, Space
from attar._src.search.trials.ranked_groups import MEASURED_ALONE, labelled_by, rank_groups
from attar._src.search.trials.spec import HoledRecipe
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel


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
    model, layers = _layers(holed.space, first, spec.sampler.name)
    pruned = isinstance(first.models[model].stages[0], PruneChannels)
    make = _of_channels if pruned else _of_bits
    problem = make(layers, first, prepared, model, spec.sampler.name, timed=spec.goal.aim == "ms")
    return LayerwiseTask(task.space, task.goal, task.seed, trials, first.folder, problem=problem)


@dataclass(frozen=True)
class _LayerHoles:
    """Holes of layers.

    Attributes:
        paths: layer -> path of its hole.
        values: that all of them have.
    """

    paths: Mapping[str, str]
    values: Sequence[Any]


def _of_bits(
    layers: _LayerHoles, first: Recipe, prepared: Preparation, model: str, sampler: str, *, timed: bool
) -> LayerwiseProblem:
    """Return the problem of the bits of layers, each solved at all bits and measured alone; ``timed`` in ms."""
    calibration, runs = prepared.dry_runs(first, Journal.unwritten())
    source = prepared.sources[model]
    source.begin(first.seeds[0])
    untouched = CompressedModel.of(runs[model].traced)
    stage = first.models[model].stages[0]
    assert isinstance(stage, ChoosesLevels)
    known, aliases = [*untouched.weights()], untouched.aliases()
    weights: dict[str, str] = {}
    for layer, path in layers.paths.items():
        matched = matching_tensors(layer, known, aliases)
        if len(matched) != 1 or matched[0] in weights:
            raise SpecError(
                f"recipe.{path}: sampler {sampler!r} goes weight by weight, and {layer!r} has {len(matched)}: "
                f"{', '.join(matched[:3])}; name each weight, or take tpe"
            )
        weights[matched[0]] = path
    use = replace(prepared.splits.use, licence=first.models[model].licence)
    inputs = calibration.of(source.parameters)
    solved = SolvedLevels.solve(
        untouched,
        stage,
        inputs,
        use,
        names=[name for name in stage.chosen(untouched) if name in weights],
        bits=[int(each) for each in layers.values],
        sparsities=(0.0,),
        measured=inputs.first(MEASURED_ALONE, cut=runs[model].traced.any_batch),
        labelled=labelled_by(first, prepared, use),
    )
    problem = solved.problem
    if timed:
        problem = in_milliseconds(problem, solved.packed, _one(inputs, runs[model]))
    return replace(problem, paths={name: (path,) for name, path in weights.items()})


def _of_channels(
    layers: _LayerHoles, first: Recipe, prepared: Preparation, model: str, sampler: str, *, timed: bool
) -> LayerwiseProblem:
    """Return the problem of the channels of groups, ranked and each measured alone; ``timed`` in ms."""
    calibration, runs = prepared.dry_runs(first, Journal.unwritten())
    run, stage = runs[model], first.models[model].stages[0]
    assert isinstance(stage, PruneChannels)
    ranked = rank_groups(first, prepared, model, stage)
    groups: dict[str, str] = {}
    for layer, path in layers.paths.items():
        matched = [each.name for each in ranked.removable.found.groups if each.matches(layer)]
        if len(matched) != 1 or matched[0] in groups:
            raise SpecError(
                f"recipe.{path}: sampler {sampler!r} goes group by group of channels, and {layer!r} is of "
                f"{len(matched)} that can be removed or of one that has a hole; name one layer of each, or take tpe"
            )
        groups[matched[0]] = path
    facts = layer_facts(CompressedModel.of(run.traced), [*groups])
    problem = channel_problem(ranked, stage, facts, [*layers.values])
    if timed:
        # Files in floating point of the module with less in it: what follows in the recipe changes all alike.
        def packed(point: Point) -> bytes:
            shares = {name: share for name, (share,) in problem.chosen(point).items()}
            asked = stage.model_copy(update={"overrides": {**stage.overrides, **shares}})
            return ranked.packed(ranked.without(asked).module)

        problem = in_milliseconds(problem, packed, _one(calibration.of(prepared.sources[model].parameters), run))
    # A file has its graph beside the weights, and weights of fewer bits after later stages.
    return replace(problem, paths={name: (path,) for name, path in groups.items()}, relative=True)


def _one(inputs: CalibrationInputs, run: DryRun) -> tuple[Tensor, ...]:
    """Return an example, or a batch where its size is fixed."""
    return inputs.example(1) if run.traced.any_batch else inputs.batches[0]


def _layers(space: Space, first: Recipe, sampler: str) -> tuple[str, _LayerHoles]:
    """Return the model, and the holes of its layers.

    Raises:
        SpecError: a hole is something else.
    """
    found: dict[str, str] = {}
    places, values = set[tuple[str, ...]](), set[tuple[Any, ...]]()
    for path, hole in space.holes.items():
        parts = path.split(".")
        model, layer = parts[1] if len(parts) > 1 else "", ".".join(parts[5:])
        stages = first.models[model].stages if parts[0] == "models" and model in first.models else ()
        counted = isinstance(hole, Choose) or hole.whole
        stage = stages[0] if stages and parts[2:5] == ["stages", "0", "overrides"] and layer and counted else None
        if not _chosen_by(stage, hole.values):
            raise SpecError(
                f"recipe.{path}: sampler {sampler!r} goes layer by layer and reads sensitivities of the model as its "
                "source gives it, so holes are choices in overrides of a first stage: of 2 to 8 bits of quantize, "
                "{'*': {choose: [2, 3, 4, 8], each: layer}}, or of shares of prune_channels, "
                "{'*': {choose: [0, 0.25, 0.5], each: layer}}; take tpe, nsga2 or random for others"
            )
        places.add(tuple(parts[:5]))
        values.add(tuple(sorted(hole.values)))
        found[layer] = path
    if len(places) > 1 or len(values) > 1:
        raise SpecError(
            f"sampler {sampler!r} goes through the layers of one stage with the same choices for all; here are "
            f"{len(places)} stages and {len(values)} lists of choices; make them one, or take tpe"
        )
    return next(iter(places))[1], _LayerHoles(found, next(iter(values)))


def _chosen_by(stage: Any, values: Sequence[Any]) -> bool:
    """Return whether a stage takes these values for layers: bits, or shares of channels."""
    if isinstance(stage, PruneChannels):
        return all(type(each) in (int, float) and 0 <= each < 1 for each in values)
    return isinstance(stage, ChoosesLevels) and all(type(each) is int and 2 <= each <= 8 for each in values)
