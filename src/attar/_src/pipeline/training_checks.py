"""Signs that the training of a model failed: in its curves, and in the test of its file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from attar._src.measure.metric import Scored
from attar._src.recipe.parts import ModelSpec

#: Share of its first value by which a loss should fall at least.
_FALL = 0.01
#: Loss of a validation metric from 0 to 1 that is too large for chance and for what compression usually costs.
_DROP = 0.1
_REMEDY = "train longer, lower optimizer.lr, or use {name: adamw}"

Row = Mapping[str, Any]


def failed_trainings(model: ModelSpec, metric: str, rows: Sequence[Row], tested: Scored) -> list[str]:
    """Return a sentence with the nearest fix for each sign that the training of a model under a seed failed.

    Args:
        model: the model in the recipe.
        metric: name of the metric.
        rows: the epochs of all its stages, in order: ``index``, ``epoch``, ``loss`` and other figures.
        tested: the test of its file.
    """
    by_stage: dict[int, list[Row]] = {}
    for row in rows:
        by_stage.setdefault(row["index"], []).append(row)
    curves = [sign for index, stage_rows in by_stage.items() for sign in _stage_signs(model, index, stage_rows)]
    return [*_tested(metric, tested), *curves, *_drops(model, f"validation_{metric}", [*by_stage.values()])]


def _tested(metric: str, result: Scored) -> Iterator[str]:
    chance = result.chance
    if not math.isfinite(result.value):
        yield f"its test {metric} is {result.value}, which is no number; check the metric, and the outputs"
    elif chance is not None and chance.explains(result.value):
        yield (
            f"its test {chance.words(metric, result.value)}; if it was trained, {_REMEDY}; else give its weights in "
            "the recipe"
        )


def _stage_signs(model: ModelSpec, index: int, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what the loss of a stage says, unless rules or schedules change what it means from epoch to epoch."""
    stage, losses = model.stages[index], [row["loss"] for row in rows if "loss" in row]
    if len(losses) < 2 or not stage.compares_losses():
        return
    first, best, last = losses[0], min(losses[1:]), losses[-1]
    name, change = (
        f"stages.{index} ({stage.stage})",
        f"from {first:.4g} in epoch 1 to {last:.4g} in epoch {len(losses)}",
    )
    if last > first + _FALL * abs(first):
        yield f"{name}: the loss rose {change}, so that the model is worse than where it began; {_REMEDY}"
    elif best > first - _FALL * abs(first) and _starts_untrained(model, index):
        yield f"{name}: the loss hardly fell, {change}; {_REMEDY}"


def _drops(model: ModelSpec, figure: str, stages: Sequence[Sequence[Row]]) -> Iterator[str]:
    """Yield in which stages a validation metric from 0 to 1, of which more is better, fell far from where it began."""
    ends = [(rows[-1]["index"], rows[-1].get(figure)) for rows in stages]
    shares = [(index, value) for index, value in ends if isinstance(value, float) and 0 <= value <= 1]
    if figure.removeprefix("validation_") not in ("accuracy", "binary_accuracy", "f1"):
        return
    for (before, first), (index, last) in pairwise(shares):
        if last < first - _DROP:
            yield (
                f"stages.{index} ({model.stages[index].stage}): {figure.replace('_', ' ', 1)} fell from {first:.4g} "
                f"after stages.{before} to {last:.4g}, so that the model is worse than where the stage began; train "
                "this stage longer, or ask for less compression"
            )


def _starts_untrained(model: ModelSpec, index: int) -> bool:
    trained_before = any(stage.batch_size() is not None for stage in model.stages[:index])
    return model.source.weights is None and not trained_before
