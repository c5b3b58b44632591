"""A trial: one recipe in a run's folder, judged on validation examples by its decoded file, never on the test split."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.artifact.writer import write_atomically
from attar._src.core.digest import digest, file_digest
from attar._src.core.errors import AttarWarning, DataError, ModelError, SpecError, UnknownName
from attar._src.core.spec import Spec
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.latency import time_in_turns
from attar._src.measure.metric import Scored, score
from attar._src.measure.runner import example_feed, open_runner
from attar._src.pipeline.execution.execute import Execution, executed
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.journal import RUN_FACTS
from attar._src.pipeline.model_source import shared_parameters
from attar._src.pipeline.results import labelled_batches
from attar._src.pipeline.split import Split
from attar._src.recipe.recipe import Recipe
from attar._src.runtime.session import Session

#: What was measured of a trial, in its folder; a trial that has it is over.
OUTCOME = "outcome.json"


class TrialOutcome(Spec):
    """What a trial measured.

    Attributes:
        file: of the model, in the trial's folder.
        sha256: of the file.
        file_bytes: its length.
        metric: name of the metric.
        value: the metric of the decoded file on the validation split.
        drop: points lost against the reference; those of the metric itself, as a loss, without one.
        unit: of the drop.
        ruined: whether most of what the reference knows beyond one answer for all is lost (``Chance.ruined``).
        others: None: outputs beside the main one are not compared.
        ms: median milliseconds of one example on one thread; None if not asked for.
        against_reference: quartiles of its time over that of the reference in the same round.
        seconds: that training, packing and measuring took; of a trial that was resumed, the last part.
    """

    file: str
    sha256: str
    file_bytes: int
    metric: str
    value: float
    drop: float
    unit: str
    ruined: bool = False
    others: float | None = None
    ms: float | None = None
    against_reference: tuple[float, float, float] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class TrialReference:
    """What files are compared with.

    Attributes:
        path: of a file.
        value: its metric on the validation split.
    """

    path: Path
    value: float


def run_trial(
    recipe: Recipe,
    folder: Path,
    *,
    model: str | None = None,
    reference: TrialReference | None = None,
    seconds: float = 0.0,
    prepared: Preparation | None = None,
    known: Path | None = None,
) -> TrialOutcome:
    """Run a recipe and measure the file of one model on the validation split, never on the test split.

    A trial that was killed goes on where it was; one that is over is read from its folder.

    Args:
        recipe: to run, without holes, with one seed.
        folder: of the run; it gets ``outcome.json``.
        model: whose file counts; by default the last in teaching order.
        reference: what the drop is measured against.
        seconds: for timing the file in turns with the reference; 0 for no timing.
        prepared: data and modules of a trial before, used where they fit.
        known: folder of a run before, whose models are taken over where they are the same: a teacher is trained once.

    Raises:
        SpecError: the recipe has several seeds, or no validation split.
        ModelError: the metric is not finite.
        AttarError: as :func:`attar.run`.
        KeyboardInterrupt: SIGINT arrived; the trial can go on.
    """
    name = judged_model(recipe, model)
    before = _read_outcome(folder, recipe, name)
    if before is not None:
        return before
    if len(recipe.seeds) > 1:
        raise SpecError(f"recipe.seeds: a trial has one seed, not {list(recipe.seeds)}; run what it finds with more")
    started = time.monotonic()
    with warnings.catch_warnings():
        # They are in the journal of the run.
        warnings.simplefilter("ignore", AttarWarning)
        resume = (folder / RUN_FACTS).exists()
        with executed(recipe, folder, resume=resume, prepared=prepared, known=known) as done:
            outcome = _measured(done, name, reference, seconds=seconds)
        outcome = outcome.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
        told = {"of": _identity(recipe, name), **outcome.model_dump(mode="json")}
        write_atomically(folder / OUTCOME, (json.dumps(told, indent=1) + "\n").encode())
        return outcome


def judged_model(recipe: Recipe, model: str | None = None) -> str:
    """Return the model whose file counts: the named one, or the last in teaching order.

    Raises:
        UnknownName: there is no such model.
    """
    if model is not None and model not in recipe.models:
        raise UnknownName("model", model, recipe.models)
    return model or recipe.order[-1]


def _identity(recipe: Recipe, model: str) -> str:
    """Return the SHA-256 of what an outcome belongs to."""
    return digest([json.dumps({"model": model, "recipe": recipe.described()}, sort_keys=True)])


def _read_outcome(folder: Path, recipe: Recipe, model: str) -> TrialOutcome | None:
    """Return the outcome in a folder if it is of this recipe and model, and the file is there and undamaged."""
    try:
        fields = json.loads((folder / OUTCOME).read_bytes())
        if fields.pop("of") != _identity(recipe, model):
            return None
        found = TrialOutcome.model_validate(fields)
        return found if file_digest(folder / found.file) == found.sha256 else None
    except (OSError, ValueError, KeyError):
        return None


def _measured(done: Execution, name: str, reference: TrialReference | None, *, seconds: float) -> TrialOutcome:
    path = done.path(done.recipe.seeds[0], name)
    scored = validation_scored(done, name)
    value, chance = scored.value, scored.chance
    metric, function = done.prepared.metric
    drop, unit = points_lost(value, None if reference is None else reference.value, metric, function)
    times: Mapping[str, Any] = {}
    if seconds:
        times = _times([path, *([] if reference is None else [reference.path])], seconds)
    return TrialOutcome(
        file=path.name,
        sha256=file_digest(path),
        file_bytes=path.stat().st_size,
        metric=metric,
        value=value,
        drop=round(drop, 6),
        unit=unit,
        ruined=reference is not None and chance is not None and chance.ruined(reference.value, value),
        **times,
    )


def validation_scored(done: Execution, name: str) -> Scored:
    """Return the metric of a model's decoded file on the validation split, and what chance reaches there.

    Raises:
        SpecError: the recipe has no such split.
        DataError: it has no targets.
        ModelError: the metric is not finite.
    """
    splits = done.prepared.splits
    if splits.validation is None:
        raise SpecError(
            "recipe.data.validation: a search judges its files on validation examples, and there are none; hold a "
            "share of the training examples out, such as 0.1, or give a split of that name (own)"
        )
    path = done.path(done.recipe.seeds[0], name)
    return scored_on(done.prepared, splits.validation, path, name, done.recipe.class_layout)


def metric_on(prepared: Preparation, split: Split, path: Path, model: str, layout: ClassLayout) -> float:
    """Return the metric of a decoded file of a model on a split; errors as of :func:`scored_on`."""
    return scored_on(prepared, split, path, model, layout).value


def scored_on(prepared: Preparation, split: Split, path: Path, model: str, layout: ClassLayout) -> Scored:
    """Return the metric of a decoded file of a model on a split, and what chance reaches.

    Raises:
        DataError: the split has no targets.
        ModelError: the metric is not finite.
    """
    sources, (name, function) = prepared.sources, prepared.metric
    session = Session(path, threads=1)
    session.artifact.verify()
    batches = labelled_batches(prepared.splits.feed(split, shared_parameters(sources)), sources[model].parameters)
    found = score(session, batches, function, classes=False, layout=layout)
    if not np.isfinite(found.value):
        raise ModelError(f"{name} of models.{model} is {found.value}")
    return found


def points_lost(value: float, reference: float | None, name: str, metric: Any) -> tuple[float, str]:
    """Return the loss in points against a reference, and their unit; without one, the metric itself as a loss.

    A metric that is no share, such as a mean squared error, loses per cent of the reference.

    Raises:
        DataError: it is not known whether more of the metric is better.

    Example:
        >>> from attar._src.measure.metric import METRICS
        >>> points_lost(0.75, 1.0, "accuracy", METRICS["accuracy"])
        (25.0, 'points of accuracy')
    """
    more = getattr(metric, "larger_is_better", None)
    if more is None:
        raise DataError(
            f"recipe.metric: a search must know whether more of {name} is better; give the function an attribute: "
            f"{name}.larger_is_better = True"
        )
    if more:
        return 100 * ((reference or 0.0) - value), f"points of {name}"
    if reference is None:
        return value, name
    return 100 * (value - reference) / max(abs(reference), 1e-12), f"% of {name}"


def _times(paths: list[Path], seconds: float) -> dict[str, Any]:
    """Return the milliseconds of the first file, and the quartiles of its time over that of the second."""
    runners = [open_runner(path, threads=1) for path in paths]
    times = time_in_turns([partial(each.run, example_feed(each, 1)) for each in runners], seconds=seconds)
    found: dict[str, Any] = {"ms": round(float(np.median(times[:, 0])), 5)}
    if len(paths) > 1:
        quartiles = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75]).round(4).tolist()
        found["against_reference"] = tuple(quartiles)
    return found
