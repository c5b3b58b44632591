"""Results of a run: its files verified, tested once on the test split, timed and inspected."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.inspect import inspect_artifact
from attar._src.core.errors import DataError
from attar._src.core.progress import track
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.latency import Latency, interleave
from attar._src.measure.metric import Metric, Scored, score
from attar._src.measure.runner import example_feed, open_runner
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import versions
from attar._src.pipeline.folder import RECIPE, RunFolder
from attar._src.pipeline.journal import Journal
from attar._src.pipeline.loader_checks import with_equal_targets
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.pipeline.training_checks import failed_trainings
from attar._src.recipe.recipe import Recipe
from attar._src.report.record import remember
from attar._src.runtime.session import Session
from attar._src.train.batch import Feed


def measure_results(
    recipe: Recipe,
    splits: DataSplits,
    sources: Mapping[str, ModelSource],
    metric: tuple[str, Metric],
    folder: RunFolder,
    *,
    command: str,
) -> dict[str, Any]:
    """Return the measurements of every model of a run, the entry ``run`` of ``report.json``.

    Sizes, layers and latencies are those of the first seed's files, the metric is that of all seeds. Numbers that are
    not finite become null.
    """
    first, baseline = recipe.seeds[0], recipe.reference
    paths = {
        (seed, name): folder.files(seed, first) / f"{name}.attar" for seed in recipe.seeds for name in recipe.models
    }
    scored = _test(paths, splits, sources, metric, recipe.class_layout)
    return {
        "recipe": recipe.described(),
        "recipe_yaml": (folder.path / RECIPE).read_text(),
        "command": command,
        "versions": versions(),
        "seeds": list(recipe.seeds),
        "baseline": baseline,
        "metric": metric[0],
        "examples": scored[first, baseline].examples,
        "class_examples": _count(splits, recipe.class_layout)
        if any(result.per_class for result in scored.values())
        else {},
        "models": _models(recipe, paths, scored, folder.journal, metric[0]),
    }


def _models(
    recipe: Recipe,
    paths: Mapping[tuple[int, str], Path],
    scored: Mapping[tuple[int, str], Scored],
    journal: Journal,
    metric: str,
) -> list[dict[str, Any]]:
    """Return the measurements of every model, compared with the baseline."""
    first, models = recipe.seeds[0], {}
    latencies = _time([paths[first, name] for name in recipe.models])
    for name, latency in zip(recipe.models, latencies, strict=True):
        runs = [scored[seed, name] for seed in recipe.seeds]
        models[name] = _model(name, paths[first, name], runs, journal.find("packed", seed=first, model=name))
        curves = [_point(recipe, row) for row in journal.find("epoch", seed=first, model=name)]
        failed = _failed_trainings(recipe, name, metric, scored, journal)
        models[name] |= {"latency": vars(latency), "curves": curves, "warnings": failed}
    baseline = models[recipe.reference]
    for model in models.values():
        model["times_smaller"] = baseline["fp32_bytes"] / model["file_bytes"]
        model["times_faster"] = baseline["latency"]["median_ms"] / model["latency"]["median_ms"]
    return list(models.values())


def _failed_trainings(
    recipe: Recipe, name: str, metric: str, scored: Mapping[tuple[int, str], Scored], journal: Journal
) -> list[str]:
    """Return the signs that trainings of a model failed; one of a later seed alone is ``seed 2: ...``."""
    found: list[str] = []
    for seed in recipe.seeds:
        rows = journal.find("epoch", seed=seed, model=name)
        signs = failed_trainings(recipe.models[name], metric, rows, scored[seed, name])
        found += [each if seed == recipe.seeds[0] else f"seed {seed}: {each}" for each in signs if each not in found]
    return found


def _test(
    paths: Mapping[tuple[int, str], Path],
    splits: DataSplits,
    sources: Mapping[str, ModelSource],
    metric: tuple[str, Metric],
    layout: ClassLayout,
) -> dict[tuple[int, str], Scored]:
    """Verify the file of each seed and model, score it on the test split, and add the score to its report."""
    scored, parameters = {}, shared_parameters(sources)
    for (seed, name), path in track(paths.items(), "testing"):
        session = Session(path, threads=1)
        session.artifact.verify()
        batches = labelled_batches(splits.feed(splits.test, parameters), sources[name].parameters)
        result = scored[seed, name] = score(session, batches, metric[1], classes=splits.has_classes, layout=layout)
        entry = {"metric": metric[0], "test": _number(result.value), "per_class": result.per_class}
        remember(path, session.artifact.sha256, entry)
    return scored


def labelled_batches(
    feed: Feed, parameters: Mapping[str, bool]
) -> Iterable[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
    """Yield every example once as arrays ``(inputs, targets)``; of named inputs those in ``parameters``.

    Raises:
        DataError: a batch has no targets, or targets differ in shape from batch to batch.
    """
    for batch in with_equal_targets(feed.once(), "a split"):
        if batch.targets is None:
            raise DataError("recipe.data.source: a batch has no targets; models cannot be tested without")
        inputs = batch.pick([name for name in parameters if name in batch.names])
        yield tuple(each.numpy() for each in inputs), batch.targets.numpy()


def _model(name: str, path: Path, runs: Sequence[Scored], packed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    session = Session(path, threads=1)
    size = inspect_artifact(session.artifact)
    stored = [item for item in size["tensors"] if item.get("dtype", "f32").startswith(("f", "bf"))]
    layers = [
        {"name": each.name, "kernel": each.kernel, "integer": each.integer, "reason": each.reason}
        for each in session.layers
    ]
    return {
        "name": name,
        "file": path.name,
        "sha256": session.artifact.sha256,
        "metric_mean": _number(mean(each.value for each in runs)),
        "metric_per_seed": [each.value for each in runs if math.isfinite(each.value)],
        "per_class": {label: mean(each.per_class.get(label, 0.0) for each in runs) for label in runs[0].per_class},
        **{key: size[key] for key in ("parameters", "bits_per_weight", "file_bytes")},
        "nonzero_share": sum(item["nonzero"] for item in stored) / max(sum(item["elements"] for item in stored), 1),
        "fp32_bytes": 4 * size["parameters"],
        "layers": layers,
        "left_in_floating_point": dict(packed[-1]["left_in_floating_point"]) if packed else {},
        "notes": dict(packed[-1]["notes"]) if packed else {},
        "record": list(packed[-1]["record"]) if packed else list(size["recipe"].get("stages", [])),
    }


def _time(paths: Sequence[Path]) -> list[Latency]:
    """Return the latency of every file for one example on one thread."""
    runners = [open_runner(path, threads=1) for path in track(paths, "opening")]
    return interleave([partial(runner.run, example_feed(runner, 1)) for runner in runners])


def _point(recipe: Recipe, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of an epoch, with the name of its stage."""
    figures = {key: _number(value) for key, value in row.items() if key not in ("event", "seed", "model", "index")}
    return figures | {"stage": _label(recipe, row["model"], row["index"])}


def _label(recipe: Recipe, name: str, index: int) -> str:
    """Return the name of a stage, numbered if the model has several of that name: ``finetune 2``."""
    words = [stage.stage for stage in recipe.models[name].stages]
    same = words[: index + 1].count(words[index])
    return f"{words[index]} {same}" if words.count(words[index]) > 1 else words[index]


def _count(splits: DataSplits, layout: ClassLayout) -> dict[str, int]:
    """Return class -> number of test examples; empty without integer targets."""
    targets = splits.test.targets
    if targets is None or targets.dtype.kind not in "iu":
        return {}
    counted = Counter(np.ravel(targets).tolist())
    return {
        str(label): count for label, count in sorted(counted.items()) if label >= 0 and label != layout.ignore_index
    }


def _number(value: Any) -> Any:
    """Return a value for JSON: None in place of NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
