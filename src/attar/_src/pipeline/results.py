"""Account: what the files of a run turn out to be: verified, judged on the test split once, timed, taken apart."""

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
from attar._src.measure.accuracy import AccuracyMetric
from attar._src.measure.latency import Latency, interleave
from attar._src.measure.metric import Metric, Scored, score
from attar._src.measure.runner import example_feed, open_runner
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import versions
from attar._src.pipeline.folder import RECIPE, RunFolder
from attar._src.pipeline.loader_checks import alike
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.recipe.recipe import Recipe
from attar._src.report.record import remember
from attar._src.runtime.session import Session
from attar._src.train.batch import Feed


def measure_results(
    recipe: Recipe,
    sets: DataSplits,
    origins: Mapping[str, ModelSource],
    metric: tuple[str, Metric],
    folder: RunFolder,
    *,
    command: str,
) -> dict[str, Any]:
    """Return what was measured on every model of a run, as ``report.json`` has it under ``run``.

    A number that is not finite is null there. Size, layers and latency are of the files of the first seed; the metric
    is of every seed's.
    """
    first = recipe.seeds[0]
    paths = {
        (seed, name): folder.files(seed, first) / f"{name}.attar" for seed in recipe.seeds for name in recipe.models
    }
    classes = metric[0] == AccuracyMetric.name or sets.use.task == "classification"
    scored, parameters = {}, shared_parameters(origins)
    for (seed, name), path in track(paths.items(), "testing"):
        session = Session(path, threads=1)
        session.artifact.verify()
        batches = labelled_batches(sets.feed(sets.test, parameters), origins[name].parameters)
        found = scored[seed, name] = score(session, batches, metric[1], classes=classes)
        told = {"metric": metric[0], "test": _number(found.value), "per_class": found.per_class}
        remember(path, session.artifact.sha256, told)
    latencies = dict(zip(recipe.models, _time([paths[first, name] for name in recipe.models]), strict=True))
    baseline = recipe.reference
    models = []
    for name in recipe.models:
        runs = [scored[seed, name] for seed in recipe.seeds]
        model = _model(name, paths[first, name], runs, folder.journal.find("packed", seed=first, model=name))
        latency = latencies[name]
        model |= {
            "latency": vars(latency),
            "times_faster": latencies[baseline].median_ms / latency.median_ms,
            "curves": [
                {key: _number(value) for key, value in row.items() if key not in ("event", "seed", "model", "index")}
                | {"stage": _label(recipe, name, row["index"])}
                for row in folder.journal.find("epoch", seed=first, model=name)
            ],
        }
        models.append(model)
    whole = next(model["fp32_bytes"] for model in models if model["name"] == baseline)
    return {
        "recipe": recipe.described(),
        "recipe_yaml": (folder.path / RECIPE).read_text(),
        "command": command,
        "versions": versions(),
        "seeds": list(recipe.seeds),
        "baseline": baseline,
        "metric": metric[0],
        "examples": scored[first, baseline].examples,
        "class_examples": _count(sets) if any(found.per_class for found in scored.values()) else {},
        "models": [model | {"times_smaller": whole / model["file_bytes"]} for model in models],
    }


def labelled_batches(
    feed: Feed, parameters: Mapping[str, bool]
) -> Iterable[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
    """Yield every example once with its targets, as arrays: of batches with names the inputs that a model takes.

    Args:
        feed: the examples.
        parameters: the arguments of the model's forward.

    Raises:
        DataError: a batch has no targets, or targets differ in shape from batch to batch.
    """
    for batch in alike(feed.once(), "a split"):
        if batch.targets is None:
            raise DataError("recipe.data.source: there are no targets to judge a model by")
        taken = batch.pick([name for name in parameters if name in batch.names])
        yield tuple(each.numpy() for each in taken), batch.targets.numpy()


def _model(name: str, path: Path, runs: Sequence[Scored], packed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    session = Session(path, threads=1)
    size = inspect_artifact(session.artifact)
    stored = [item for item in size["tensors"] if item.get("dtype", "f32").startswith(("f", "bf"))]
    labels = runs[0].per_class
    layers = [
        {"name": each.name, "kernel": each.kernel, "integer": each.integer, "reason": each.reason}
        for each in session.layers
    ]
    return {
        "name": name,
        "file": path.name,
        "sha256": session.artifact.sha256,
        "metric_mean": _number(mean(found.value for found in runs)),
        "metric_per_seed": [found.value for found in runs if math.isfinite(found.value)],
        "per_class": {label: mean(found.per_class.get(label, 0.0) for found in runs) for label in labels},
        "parameters": size["parameters"],
        "nonzero_share": sum(item["nonzero"] for item in stored) / max(sum(item["elements"] for item in stored), 1),
        "bits_per_weight": size["bits_per_weight"],
        "file_bytes": size["file_bytes"],
        "fp32_bytes": 4 * size["parameters"],
        "layers": layers,
        "left": dict(packed[-1]["left"]) if packed else {},
        "record": list(packed[-1]["record"]) if packed else list(size["recipe"].get("stages", [])),
    }


def _time(paths: Sequence[Path]) -> list[Latency]:
    """Return the latency of every file: one example, one thread, in turns."""
    runners = [open_runner(path, threads=1) for path in track(paths, "opening")]
    return interleave([partial(runner.run, example_feed(runner, 1)) for runner in runners])


def _label(recipe: Recipe, name: str, index: int) -> str:
    """Return what a stage is called: its name, numbered where a model has several of it."""
    words = [stage.stage for stage in recipe.models[name].stages]
    same = words[: index + 1].count(words[index])
    return f"{words[index]} {same}" if words.count(words[index]) > 1 else words[index]


def _count(sets: DataSplits) -> dict[str, int]:
    """Return how many test examples each class has, empty where there are no classes."""
    targets = sets.test.targets
    if targets is None or targets.dtype.kind not in "iu":
        return {}
    counted = Counter(np.ravel(targets).tolist())
    return {str(label): count for label, count in sorted(counted.items()) if label >= 0}


def _number(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinity are none there."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
