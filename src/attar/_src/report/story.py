"""A run folder, read and checked.

    report.json ("run")  +  the .attar files it names  -->  Story  -->  figures, sections, page

Sizes and tensors are read from the files, whose SHA-256 must be that of the measured files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import AttarError, UnknownName
from attar._src.core.spec import Spec, explain
from attar._src.report.collapse import Change, compare_classes
from attar._src.report.record import NAME, RUN, read_report


class _Reported(Spec):
    """Written by a run; unknown keys are ignored, and a metric may be NaN."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)


class Timing(_Reported):
    """Latency of a file."""

    median_ms: float
    spread: float
    rounds: int


class ReportedLayer(_Reported):
    """Where a layer ran."""

    name: str
    kernel: str
    integer: bool
    reason: str = ""


class Measured(_Reported):
    """One model of a run in ``report.json``.

    Attributes:
        name, file, sha256: the model, its file in the run's folder, and the SHA-256 of that file.
        metric_mean, metric_per_seed: the test metric; None and empty if it was not measured.
        per_class: label -> accuracy, 0 to 1; empty without classes.
        parameters, nonzero_share: number of parameters, and the share that is not zero.
        fp32_bytes: four bytes for each parameter.
        times_faster: median latency of the baseline over that of this model.
        left_in_floating_point: tensor or value -> reason.
        fidelity: the file against its floating-point model; empty if they were not compared.
        warnings: what its user should know first, each with the nearest fix.
        notes: what else the user should know of the file -> the explanation.
        record: of each stage.
        curves: one row of figures for every epoch, with ``stage`` and ``epoch``.
    """

    name: str
    file: str
    sha256: str
    metric_mean: float | None = None
    metric_per_seed: tuple[float, ...] = ()
    per_class: dict[str, float] | None = None
    parameters: int
    nonzero_share: float | None = None
    fp32_bytes: int
    latency: Timing | None = None
    times_faster: float | None = None
    layers: tuple[ReportedLayer, ...] = ()
    left_in_floating_point: dict[str, str] = {}
    fidelity: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    notes: dict[str, str] = {}
    record: tuple[Any, ...] = ()
    curves: tuple[dict[str, Any], ...] = ()

    @property
    def median_ms(self) -> float | None:
        """Median latency; None if it was not timed."""
        return self.latency.median_ms if self.latency else None


class ReportedRun(_Reported):
    """A run of a recipe in ``report.json``.

    Attributes:
        recipe, recipe_yaml: the recipe as run.
        command, versions, seeds: how to run it again.
        baseline: the model with which the others are compared.
        metric, examples: name of the test metric, and number of test examples.
        class_examples: label -> number of test examples; empty if they were not counted.
        models: the measurements of each model.
    """

    recipe: dict[str, Any] = {}
    recipe_yaml: str = ""
    command: str = ""
    versions: dict[str, str] = {}
    seeds: tuple[int, ...] = ()
    baseline: str
    metric: str = "accuracy"
    examples: int | None = None
    class_examples: dict[str, int] | None = None
    models: tuple[Measured, ...]


@dataclass(frozen=True)
class ReportedModel:
    """A model of the run: its measurements, its open file, and the baseline's measurements."""

    measured: Measured
    artifact: Artifact
    baseline: Measured

    @property
    def name(self) -> str:
        """Its name in the recipe."""
        return self.measured.name

    @cached_property
    def contents(self) -> Mapping[str, Any]:
        """The output of ``attar inspect --json``."""
        return inspect_artifact(self.artifact)

    @property
    def file_bytes(self) -> int:
        """Length of the file."""
        return self.artifact.file_bytes

    @property
    def times_smaller(self) -> float:
        """Bytes of the baseline's FP32 weights over bytes of the whole file."""
        return self.baseline.fp32_bytes / self.file_bytes

    @property
    def times_faster(self) -> float | None:
        """Median latency of the baseline over that of this model; None if one was not timed."""
        mine, theirs = self.measured.median_ms, self.baseline.median_ms
        if self.measured.times_faster is not None:
            return self.measured.times_faster
        return theirs / mine if mine and theirs else None


@dataclass(frozen=True)
class Story:
    """A run, read and checked.

    Attributes:
        folder: name of its folder.
        run: its entry in ``report.json``.
        models: in the order of the run.
    """

    folder: str
    run: ReportedRun
    models: tuple[ReportedModel, ...]

    @property
    def baseline(self) -> ReportedModel:
        """The model with which the others are compared."""
        return next(model for model in self.models if model.name == self.run.baseline)

    @property
    def others(self) -> tuple[ReportedModel, ...]:
        """All models but the baseline."""
        return tuple(model for model in self.models if model.name != self.run.baseline)

    @property
    def main(self) -> ReportedModel:
        """The model with the smallest file apart from the baseline; the baseline if it is alone."""
        return min(self.others, key=lambda model: model.file_bytes, default=self.baseline)

    @property
    def main_first(self) -> tuple[ReportedModel, ...]:
        """All models, the main one first."""
        return (self.main, *(model for model in self.models if model is not self.main))

    @property
    def data(self) -> str:
        """Name of the data set; empty if the recipe has none."""
        given = self.run.recipe.get("data", "")
        found = given.get("source", "") if isinstance(given, dict) else given
        return found if isinstance(found, str) else ""

    @property
    def warnings(self) -> Mapping[str, tuple[str, ...]]:
        """Model -> its warnings; models without any are left out."""
        return {model.name: model.measured.warnings for model in self.main_first if model.measured.warnings}

    @cached_property
    def changes(self) -> Mapping[str, tuple[Change, ...]]:
        """Model -> the change of each class; models without classes are left out."""
        before = self.baseline.measured.per_class or {}
        evenly = (self.run.examples or 0) / max(len(before), 1)
        examples = {label: (self.run.class_examples or {}).get(label, evenly) for label in before}
        found = {model.name: compare_classes(before, model.measured.per_class or {}, examples) for model in self.others}
        return {name: changes for name, changes in found.items() if changes}

    @property
    def collapsed(self) -> Mapping[str, tuple[Change, ...]]:
        """Model -> the classes that collapsed; models without any are left out."""
        found = {name: tuple(change for change in all_ if change.collapsed) for name, all_ in self.changes.items()}
        return {name: changes for name, changes in found.items() if changes}


def read_story(folder: Path) -> Story:
    """Read the folder of a finished run."""
    run = _run(folder)
    names = [model.name for model in run.models]
    if not names or len(set(names)) != len(names):
        raise AttarError(
            f"{folder / NAME}: run.models should hold one model or more, each of its own name; got {names}"
        )
    if run.baseline not in names:
        raise AttarError(f"{folder / NAME}: run.baseline: {UnknownName('model', run.baseline, names)}")
    baseline = run.models[names.index(run.baseline)]
    models = tuple(ReportedModel(model, _artifact(folder, model), baseline) for model in run.models)
    return Story(folder.resolve().name, run, models)


def _run(folder: Path) -> ReportedRun:
    path = folder / NAME
    if not folder.is_dir():
        there = f"; the run's folder may be {folder.parent}" if folder.is_file() else ""
        raise AttarError(f"{folder} is not a folder: name the folder of a run, such as runs/demo{there}")
    if not path.is_file():
        raise AttarError(
            f"{folder} has no {NAME}: a run writes it when it ends. "
            f"Finish it with `attar run RECIPE.yaml --out {folder} --resume`"
        )
    known = read_report(path)
    if RUN not in known:
        raise AttarError(
            f"{path} has measurements of files but not of a run; `attar run RECIPE.yaml --out {folder}` writes those, "
            "`attar inspect FILE` shows a file"
        )
    try:
        return ReportedRun.model_validate(known[RUN])
    except ValidationError as error:
        why = explain(error, where=f"{path}: {RUN}")
        raise AttarError(f"{why}; run the recipe again, or undo what was changed") from error


def _artifact(folder: Path, model: Measured) -> Artifact:
    path = folder / model.file
    if not path.is_file():
        raise AttarError(
            f"{path} is missing: {NAME} names it as the file of {model.name!r}. Put it back, or make it again with "
            f"`attar run RECIPE.yaml --out {folder} --resume`"
        )
    artifact = open_artifact(path)
    if artifact.sha256 != model.sha256:
        raise AttarError(
            f"{path} is not the file that was measured: its SHA-256 is {artifact.sha256}, {NAME} has {model.sha256}. "
            "Put that file back, or run the recipe again"
        )
    return artifact
